// The 2 x 2 outputs of a convolution that are one window of max pooling, in registers.
#pragma once

#include <cstring>

#include "cpu/argmax.hpp"
#include "cpu/pool_window.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

// For a vector of k.
template <class T>
struct TileOutputs {
  Vec<T> y[2][2];
};

// The lowest byte of each lane, of `count` lanes. By groups of 16 bytes, within which any order of bytes is one
// instruction; GCC 12 makes thirty of __builtin_convertvector.
template <class T>
[[gnu::always_inline]] inline void store_bytes(std::uint8_t* to, Lanes<Vec<T>> lanes, std::int64_t count) {
#if STAPES_VECTOR_BYTES == 64
  if constexpr (sizeof(T) == 4) {  // one instruction
    const auto there = static_cast<__mmask16>(count >= kLanes<T> ? 0xffff : (1u << count) - 1);
    return _mm512_mask_cvtepi32_storeu_epi8(to, there, reinterpret_cast<__m512i>(lanes));
  }
#endif
  constexpr int kGroup = 16 / sizeof(T);
  const auto low = [&]<std::size_t... i>(std::index_sequence<i...>) {
    const Bytes bytes = reinterpret_cast<Bytes>(lanes);
    return __builtin_shufflevector(bytes, bytes, static_cast<int>(i / 16 * 16 + i % kGroup * sizeof(T))...);
  }(std::make_index_sequence<sizeof(Bytes)>());
  alignas(sizeof(Bytes)) std::uint8_t all[sizeof(Bytes)];
  std::memcpy(all, &low, sizeof(low));
  if (count >= kLanes<T>) {
#pragma GCC unroll 4
    for (int group = 0; group < kLanes<T> / kGroup; ++group) std::memcpy(to + group * kGroup, all + group * 16, kGroup);
  } else {
    for (std::int64_t i = 0; i < count; ++i) to[i] = all[i / kGroup * 16 + i % kGroup];
  }
}

// ReLU and maximum, and its place: `count` channels of it.
template <class T>
[[gnu::always_inline]] inline void pool_tile(const TileOutputs<T>& tile, std::int64_t count, T* y,
                                             std::uint8_t* argmax) {
  Vec<T> best = tile.y[0][0];
  Lanes<Vec<T>> place{};
#pragma GCC unroll 3
  for (int i = 1; i < 4; ++i) {
    const Vec<T> v = tile.y[i / 2][i % 2];
    const auto stays = v <= best;
    const auto take = (stays == 0) & (best == best);  // larger, or the first NaN
    best = take ? v : best;
    place = take ? index_splat<Lanes<Vec<T>>>(i) : place;
  }
  const auto dead = best <= Vec<T>{};
  best = dead ? Vec<T>{} : best;
  place = dead ? index_splat<Lanes<Vec<T>>>(kDead) : place;
  if (count >= kLanes<T>) {
    store(y, best);
  } else {
    store_part(y, best, static_cast<int>(count));
  }
  store_bytes<T>(argmax, place, count);
}

}  // namespace stapes::cpu::STAPES_ISA_NAME
