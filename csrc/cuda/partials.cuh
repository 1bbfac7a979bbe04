// Sums over a grid in a fixed order: each block leaves a partial result, and later one block adds them.
#pragma once

#include <cstdint>

#include "cuda/primitives.cuh"
#include "cuda/runtime.cuh"

namespace stapes::cuda {

// As many blocks as there is work for, at least one and at most kMaxPartials; not a function of the device, so that the
// sums are the same bits on each.
inline constexpr std::int64_t kMaxPartials = 512;

inline unsigned grid_of_partials(std::int64_t blocks) {
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks < kMaxPartials ? blocks : kMaxPartials);
}

// The sum of all partials, to each thread of a block.
template <int Threads>
__device__ double sum_of_partials(const double* partials, int count, double* scratch) {
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += Threads) sum += partials[i];
  return block_reduce<Threads>(sum, Sum{}, 0.0, scratch);
}

}  // namespace stapes::cuda
