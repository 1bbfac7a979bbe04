// The argmax of max pooling: where in a run of channels is it this place? For Vec<T> or T at a time. As an index, it
// picks one of four numbers.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "cpu/lanes.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

typedef std::uint8_t Bytes __attribute__((vector_size(STAPES_VECTOR_BYTES)));

template <class U>
struct WordsOf {
  typedef U type __attribute__((vector_size(STAPES_VECTOR_BYTES)));
};

// kLanes<T> bytes, over and over.
template <class T>
[[gnu::always_inline]] inline Bytes repeat_bytes(const std::uint8_t* p) {
  constexpr int kCount = kLanes<T>;
  using U =
      std::conditional_t<kCount == 2, std::uint16_t, std::conditional_t<kCount == 4, std::uint32_t, std::uint64_t>>;
  using Words = typename WordsOf<U>::type;
  U word;
  __builtin_memcpy(&word, p, sizeof(U));
  Words words = Words{} + word;
  if constexpr (kCount == 16) {
    __builtin_memcpy(&word, p + 8, sizeof(U));
    for (std::size_t i = 1; i < STAPES_VECTOR_BYTES / sizeof(U); i += 2) words[i] = word;
  }
  return reinterpret_cast<Bytes>(words);
}

// Each lane filled with its byte. No byte leaves its group of 16: then it is one instruction.
template <class T, std::size_t... k>
[[gnu::always_inline]] inline Lanes<Vec<T>> spread_bytes(const std::uint8_t* p, std::index_sequence<k...>) {
  const Bytes bytes = repeat_bytes<T>(p);
  return reinterpret_cast<Lanes<Vec<T>>>(
      __builtin_shufflevector(bytes, bytes, static_cast<int>(k / 16 * 16 + k / sizeof(T) % kLanes<T>)...));
}

// Each lane its byte.
template <class T>
[[gnu::always_inline]] inline Lanes<Vec<T>> widen_bytes(const std::uint8_t* p) {
#if STAPES_VECTOR_BYTES == 64
  if constexpr (sizeof(T) == 4) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return reinterpret_cast<Lanes<Vec<T>>>(_mm512_maskz_cvtepu8_epi32(0xffff, bytes));
  }
#endif
  return spread_bytes<T>(p, std::make_index_sequence<STAPES_VECTOR_BYTES>()) & 0xff;
}

// Each lane one of four numbers, whose bits may be anything: that of its index; any of them where this is above 3.
template <class T>
[[gnu::always_inline]] inline Vec<T> pick(const T* four, Lanes<Vec<T>> index) {
#if STAPES_VECTOR_BYTES == 64
  if constexpr (sizeof(T) == 4) {  // one cheap instruction, which the compiler does not find
    const __m512 all = _mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(four));
    return _mm512_maskz_permutevar_ps(0xffff, all, reinterpret_cast<__m512i>(index));
  }
#elif STAPES_VECTOR_BYTES == 32
  if constexpr (sizeof(T) == 4) {
    const __m256 all = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(four));
    return _mm256_permutevar_ps(all, reinterpret_cast<__m256i>(index));
  }
#endif
  Lanes<T> bits[4];
  std::memcpy(bits, four, sizeof(bits));
  Lanes<Vec<T>> picked = Lanes<Vec<T>>{} + bits[0];
#pragma GCC unroll 3
  for (int i = 1; i < 4; ++i) picked = index == Lanes<Vec<T>>{} + i ? Lanes<Vec<T>>{} + bits[i] : picked;
  return reinterpret_cast<Vec<T>>(picked);
}

template <class V, class T>
[[gnu::always_inline]] inline auto is_place(const std::uint8_t* argmax, std::int64_t place, const T*) {
  if constexpr (sizeof(V) == sizeof(T)) {
    return *argmax == place;
  } else if constexpr (STAPES_VECTOR_BYTES == 64 && sizeof(T) == 4) {
    return widen_bytes<T>(argmax) == Lanes<V>{} + static_cast<Lanes<T>>(place);
  } else {
    const auto filled = static_cast<Lanes<T>>(static_cast<std::uint64_t>(place) * 0x0101010101010101u);
    return spread_bytes<T>(argmax, std::make_index_sequence<STAPES_VECTOR_BYTES>()) == Lanes<V>{} + filled;
  }
}

template <class T>
struct PlacesOf {
  typedef std::int32_t type __attribute__((vector_size(sizeof(std::int32_t) * kLanes<T>)));
};

template <class V, class T>
[[gnu::always_inline]] inline auto is_place(const std::int32_t* argmax, std::int64_t place, const T*) {
  if constexpr (sizeof(V) == sizeof(T)) {
    return *argmax == place;
  } else {
    typename PlacesOf<T>::type places;
    __builtin_memcpy(&places, argmax, sizeof(places));
    return __builtin_convertvector(places, Lanes<V>) == Lanes<V>{} + static_cast<Lanes<T>>(place);
  }
}

}  // namespace stapes::cpu::STAPES_ISA_NAME
