// Which of up to 64 channels does the argmax of a window name this place for? As bits, the first channel lowest.
#pragma once

#include <cstdint>

#include "cpu/parallel.hpp"

#ifdef __SSE2__
#include <immintrin.h>
#endif

namespace stapes::cpu::STAPES_ISA_NAME {

inline std::uint64_t place_bits(const std::uint8_t* argmax, std::int64_t count, std::uint8_t place) {
  std::uint64_t bits = 0;
  std::int64_t i = 0;
#ifdef __SSE2__
  const __m128i wanted = _mm_set1_epi8(static_cast<char>(place));
  for (; i + 16 <= count; i += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(argmax + i));
    const auto found = static_cast<unsigned>(_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, wanted)));
    bits |= static_cast<std::uint64_t>(found) << i;
  }
#endif
  for (; i < count; ++i) bits |= static_cast<std::uint64_t>(argmax[i] == place) << i;
  return bits;
}

}  // namespace stapes::cpu::STAPES_ISA_NAME
