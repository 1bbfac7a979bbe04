// CUDA C++ for g++ (C++20), for tests on machines without a GPU: a kernel file includes this where nvcc would include
// cuda_runtime.h. Here is the language: qualifiers, built-in variables, intrinsics. What they call is in device.hpp.
//
// Left out on purpose, so that a kernel which uses them does not compile: __activemask (its value is no promise),
// float atomics (their order changes the bits), inline PTX (it belongs behind the wrappers of cuda/mma.cuh).
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <source_location>

#include "simt/device.hpp"
#include "simt/numbers.hpp"
#include "simt/vectors.hpp"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __constant__ static
// One thread runs all fibers, so thread-local is shared; and a module's thread-locals, those of template instances
// too, lie in one range, by which the checks know shared memory. The alignment leaves gaps between arrays, so that the
// end of most can be told.
#define __shared__ alignas(64) static thread_local

#define threadIdx (simt::thread_index())
#define blockIdx (simt::block_index())
#define blockDim (simt::block_size())
#define gridDim (simt::grid_size())
constexpr int warpSize = 32;

// ---- barriers and warp collectives
inline void __syncthreads(simt::Here here = simt::Here::current()) { simt::barrier(here); }
inline void __syncwarp(std::uint32_t mask = ~0u, simt::Here here = simt::Here::current()) {
  simt::collective(simt::exec_syncwarp, mask, nullptr, false, here);
}

template <class T>
T __shfl_sync(std::uint32_t mask, T v, int lane, int width = 32, simt::Here here = simt::Here::current()) {
  return simt::shuffle(simt::Shuffle::kIndex, mask, v, lane, width, here);
}
template <class T>
T __shfl_up_sync(std::uint32_t mask, T v, unsigned delta, int width = 32, simt::Here here = simt::Here::current()) {
  return simt::shuffle(simt::Shuffle::kUp, mask, v, static_cast<int>(delta), width, here);
}
template <class T>
T __shfl_down_sync(std::uint32_t mask, T v, unsigned delta, int width = 32, simt::Here here = simt::Here::current()) {
  return simt::shuffle(simt::Shuffle::kDown, mask, v, static_cast<int>(delta), width, here);
}
template <class T>
T __shfl_xor_sync(std::uint32_t mask, T v, int lanes, int width = 32, simt::Here here = simt::Here::current()) {
  return simt::shuffle(simt::Shuffle::kXor, mask, v, lanes, width, here);
}

inline std::uint32_t __ballot_sync(std::uint32_t mask, int predicate, simt::Here here = simt::Here::current()) {
  std::uint32_t vote = predicate != 0;
  simt::collective(simt::exec_ballot, mask, &vote, false, here);
  return vote;
}
inline int __any_sync(std::uint32_t mask, int predicate, simt::Here here = simt::Here::current()) {
  return __ballot_sync(mask, predicate, here) != 0;
}
inline int __all_sync(std::uint32_t mask, int predicate, simt::Here here = simt::Here::current()) {
  return __ballot_sync(mask, !predicate, here) == 0;
}

// ---- memory
inline void __threadfence() { simt::fence(); }
inline int atomicAdd(int* p, int v) { return simt::atomic_add(p, v); }
inline unsigned atomicAdd(unsigned* p, unsigned v) { return simt::atomic_add(p, v); }
inline unsigned long long atomicAdd(unsigned long long* p, unsigned long long v) { return simt::atomic_add(p, v); }
template <class T>
T __ldg(const T* p) {
  return *p;
}

// ---- numbers
using std::max, std::min;
inline int __popc(unsigned v) { return std::popcount(v); }
inline int __popcll(unsigned long long v) { return std::popcount(v); }
inline int __clz(int v) { return std::countl_zero(static_cast<unsigned>(v)); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((std::uint64_t{a} * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  __extension__ using u128 = unsigned __int128;
  return static_cast<unsigned long long>((u128{a} * b) >> 64);
}
inline float __int_as_float(int v) { return std::bit_cast<float>(v); }
inline int __float_as_int(float v) { return std::bit_cast<int>(v); }
inline float __uint_as_float(unsigned v) { return std::bit_cast<float>(v); }
inline unsigned __float_as_uint(float v) { return std::bit_cast<unsigned>(v); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float a) { return std::exp(a); }
inline float __logf(float a) { return std::log(a); }
inline float __saturatef(float a) { return a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f; }
inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }
inline double rsqrt(double a) { return 1.0 / std::sqrt(a); }
