// finish(i, sum over j < count of partials[j * pitch + i]) for i < size: how a split reduction ends without atomics.
// Layout: `count` rows of float32, `pitch` elements apart.
// Work: a block of 32 x 16 threads takes 32 columns; thread (i, j) sums rows j, j + 16, ... of column i, and the 16
//   sums of a column are added by one thread, which calls finish.
// Launch bounds: 512 threads.
// Numerics: float32; the order depends on count alone.
// Measured: not measured.
#pragma once

#include <cstdint>

#include "cuda/runtime.cuh"

namespace stapes::cuda {

struct OrderedSumBlock {
  static constexpr int kColumns = 32, kRows = 16;
};

template <class Finish>
__global__ void __launch_bounds__(OrderedSumBlock::kColumns* OrderedSumBlock::kRows)
    ordered_sum_kernel(const float* partials, int count, std::int64_t pitch, std::int64_t size, Finish finish) {
  constexpr int kColumns = OrderedSumBlock::kColumns, kRows = OrderedSumBlock::kRows;
  __shared__ float sums[kRows][kColumns];
  const int column = static_cast<int>(threadIdx.x), row = static_cast<int>(threadIdx.y);
  const std::int64_t i = std::int64_t{blockIdx.x} * kColumns + column;
  float sum = 0.0f;
  if (i < size) {
    for (int j = row; j < count; j += kRows) sum += partials[j * pitch + i];
  }
  sums[row][column] = sum;
  __syncthreads();
  if (row == 0 && i < size) {
    for (int j = 1; j < kRows; ++j) sum += sums[j][column];
    finish(i, sum);
  }
}

template <class Finish>
void ordered_sum(const float* partials, int count, std::int64_t pitch, std::int64_t size, const Finish& finish,
                 Stream stream) {
  using Block = OrderedSumBlock;
  launch(ordered_sum_kernel<Finish>, dim3(static_cast<unsigned>(ceil_div<std::int64_t>(size, Block::kColumns))),
         dim3(Block::kColumns, Block::kRows), 0, stream, partials, count, pitch, size, finish);
}

struct StoreSum {
  float* out;
  __device__ __forceinline__ void operator()(std::int64_t i, float sum) const { out[i] = sum; }
};

// out[i] = sum over j < count of partials[j * pitch + i], for i < size.
inline void ordered_sum(const float* partials, int count, std::int64_t pitch, std::int64_t size, float* out,
                        Stream stream) {
  ordered_sum(partials, count, pitch, size, StoreSum{out}, stream);
}

}  // namespace stapes::cuda
