// Rows of a matrix, each of them worked on by a group of Lanes threads: some lanes of a warp, a warp, or a block.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/primitives.cuh"
#include "cuda/runtime.cuh"

namespace stapes::cuda {

inline constexpr int kRowThreads = 256;

template <int Lanes>
inline constexpr int kRowsPerBlock = kRowThreads / Lanes;

// Calls f with Lanes, an std::integral_constant, as the length of rows asks for.
template <class F>
void with_lanes(std::int64_t columns, F&& f) {
  if (columns <= 32) {
    f(std::integral_constant<int, 8>{});
  } else if (columns <= 1024) {
    f(std::integral_constant<int, 32>{});
  } else {
    f(std::integral_constant<int, kRowThreads>{});
  }
}

// Shared memory of row_reduce.
template <class T>
using RowScratch = T[kRowThreads / 32];

// The result for all values of the group, to each of its threads. All threads of the block must call it.
template <int Lanes, class T, class Op>
__device__ __forceinline__ T row_reduce(T v, Op op, T neutral, RowScratch<T>& scratch) {
  if constexpr (Lanes == kRowThreads) {
    return block_reduce<kRowThreads>(v, op, neutral, scratch);
  } else {
#pragma unroll
    for (int lanes = Lanes / 2; lanes > 0; lanes /= 2) v = op(v, __shfl_xor_sync(~0u, v, lanes));
    return v;
  }
}

}  // namespace stapes::cuda
