// Kernels over NHWC arrays in which a thread takes some neighbouring channels of one pixel: V of them by one access of
// 16 bytes, where the number of channels and the addresses allow, else one.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "cuda/channels.cuh"
#include "cuda/dtype.cuh"

namespace stapes::cuda {

// ---- on the host
// Calls f(T{}, V) with the type of `dtype` and, as an integral constant, the channels a thread takes. `arrays` are all
// that it accesses by vectors, whatever their element; addresses of 16 bytes do for each of them.
template <class F>
void with_channels(DType dtype, std::int64_t channels, std::initializer_list<const void*> arrays, F&& f) {
  bool aligned = true;
  for (const void* p : arrays) aligned = aligned && is_aligned(p, 16);
  with_cuda_dtype(dtype, [&]<class T>(T) {
    if (aligned && channels % kVec<T> == 0) {
      f(T{}, std::integral_constant<int, kVec<T>>{});
    } else {
      f(T{}, std::integral_constant<int, 1>{});
    }
  });
}

// Blocks of kItemThreads threads, a thread an item; beyond the largest grid a thread takes several (for_items).
inline constexpr int kItemThreads = 256;

inline unsigned blocks_of_items(std::int64_t items) {
  constexpr std::int64_t kMaxBlocks = 0x7fffffff;
  const std::int64_t blocks = ceil_div<std::int64_t>(items, kItemThreads);
  return static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks);
}

// ---- on the device
template <class F>
__device__ __forceinline__ void for_items(std::int64_t items, F&& f) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kItemThreads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kItemThreads + threadIdx.x; i < items; i += step) f(i);
}

// a / b and a % b of numbers >= 0. A division of 64 bits takes several times the instructions of one of 32.
struct Division {
  std::int64_t quotient, remainder;
};
__device__ __forceinline__ Division divide(std::int64_t a, std::int64_t b) {
  if (((a | b) >> 32) != 0) return {a / b, a % b};
  const auto n = static_cast<std::uint32_t>(a), d = static_cast<std::uint32_t>(b);
  return {n / d, n % d};
}

// Item i of (N, H, W, C / V): a pixel, and the first of its channels that are the thread's.
struct Place {
  std::int64_t n, h, w, c;
};
template <int V>
__device__ __forceinline__ Place place_of(std::int64_t i, std::int64_t H, std::int64_t W, std::int64_t C) {
  const Division channel = divide(i, C / V), column = divide(channel.quotient, W), row = divide(column.quotient, H);
  return {row.quotient, row.remainder, column.remainder, channel.remainder * V};
}

}  // namespace stapes::cuda
