// Vectors of the widest kind that the instruction set being compiled for has, by the compiler's
// vector extension: a * b + c becomes one FMA where there is one (-ffp-contract=fast).
// All of it lives in a namespace named after the instruction set, so that no two variants of an
// inline function can be merged by the linker.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/isa.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

// Set by CMake for each variant: STAPES_ISA_NAME (a namespace) and STAPES_ISA_ID (an Isa).
#if defined(__AVX512F__)
#define STAPES_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define STAPES_VECTOR_BYTES 32
#else
#define STAPES_VECTOR_BYTES 16
#endif

namespace stapes::cpu::STAPES_ISA_NAME {

inline constexpr Isa kIsa = Isa::STAPES_ISA_ID;

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(STAPES_VECTOR_BYTES)));
  typedef float unaligned __attribute__((vector_size(STAPES_VECTOR_BYTES), aligned(4), may_alias));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(STAPES_VECTOR_BYTES)));
  typedef double unaligned __attribute__((vector_size(STAPES_VECTOR_BYTES), aligned(8), may_alias));
};

template <class T>
using Vec = typename VectorOf<T>::type;
template <class T>
inline constexpr int kLanes = STAPES_VECTOR_BYTES / static_cast<int>(sizeof(T));

template <class T>
[[gnu::always_inline]] inline Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename VectorOf<T>::unaligned*>(p);
}

template <class T>
[[gnu::always_inline]] inline void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename VectorOf<T>::unaligned*>(p) = v;
}

template <class T>
[[gnu::always_inline]] inline Vec<T> splat(T value) {
  return value - Vec<T>{};  // x - 0 keeps the sign of zero
}

// For long unrolled sums: left alone, the compiler keeps numbers that are read several times in registers, and computes
// the sums one after the other from copies on the stack.
template <class T>
[[gnu::always_inline]] inline void compute_here([[maybe_unused]] Vec<T>& v) {
#if STAPES_VECTOR_BYTES >= 32
  asm volatile("" : "+v"(v));
#endif
}

// Left alone, the compiler keeps an address of its own for each of many accesses that differ by multiples of a stride,
// more than there are registers. This one it takes as it is, and makes the others of it.
template <class T>
[[gnu::always_inline]] inline T* as_is(T* p) {
  asm("" : "+r"(p));
  return p;
}

// *p in every lane, read whenever it is asked for.
template <class T>
[[gnu::always_inline]] inline Vec<T> splat_anew(const T* p) {
#if STAPES_VECTOR_BYTES >= 32
  Vec<T> v;
  if constexpr (sizeof(T) == sizeof(float)) {
    asm volatile("vbroadcastss %1, %0" : "=v"(v) : "m"(*p));
  } else {
    asm volatile("vbroadcastsd %1, %0" : "=v"(v) : "m"(*p));
  }
  return v;
#else
  return splat(*p);
#endif
}

// The first n < kLanes elements; the rest are zero.
template <class T>
inline Vec<T> load_part(const T* p, int n) {
#if STAPES_VECTOR_BYTES == 64
  const auto there = static_cast<__mmask16>((1u << n) - 1);
  if constexpr (sizeof(T) == sizeof(float)) return _mm512_maskz_loadu_ps(there, p);
  if constexpr (sizeof(T) == sizeof(double)) return _mm512_maskz_loadu_pd(static_cast<__mmask8>(there), p);
#endif
  Vec<T> v{};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}

template <class T>
inline void store_part(T* p, Vec<T> v, int n) {
#if STAPES_VECTOR_BYTES == 64
  const auto there = static_cast<__mmask16>((1u << n) - 1);
  if constexpr (sizeof(T) == sizeof(float)) return _mm512_mask_storeu_ps(p, there, v);
  if constexpr (sizeof(T) == sizeof(double)) return _mm512_mask_storeu_pd(p, static_cast<__mmask8>(there), v);
#endif
  for (int i = 0; i < n; ++i) p[i] = v[i];
}

}  // namespace stapes::cpu::STAPES_ISA_NAME
