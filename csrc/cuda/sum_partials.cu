// out[i] = sum over j < count of partials[j * size + i]
// Layout: float32, any size and address.
// Work: a block of 32 x 8 threads takes 32 neighbours i; row y of threads sums j = y, y + 8, ..., then the 8 sums are
//   added. Each access of a warp is 128 bytes in a row.
// Launch bounds: 256 threads. Numerics: float32, the order fixed by count. Overwrites.
// Measured: not measured.
#include "cuda/runtime.cuh"
#include "cuda/sum_partials.cuh"

namespace stapes::cuda {
namespace {

constexpr int kColumns = 32, kRows = 8;

__global__ void __launch_bounds__(kColumns* kRows)
    sum_partials_kernel(const float* partials, std::int64_t count, float* out, std::int64_t size) {
  __shared__ float sums[kRows][kColumns];
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kColumns + x;
  float sum = 0.0f;
  if (i < size) {
#pragma unroll 4
    for (std::int64_t j = y; j < count; j += kRows) sum += partials[j * size + i];
  }
  sums[y][x] = sum;
  __syncthreads();
  if (y > 0 || i >= size) return;
#pragma unroll
  for (int row = 1; row < kRows; ++row) sum += sums[row][x];
  out[i] = sum;
}

}  // namespace

void sum_partials(const float* partials, std::int64_t count, float* out, std::int64_t size, Stream stream) {
  launch(sum_partials_kernel, dim3(static_cast<unsigned>(ceil_div<std::int64_t>(size, kColumns))),
         dim3(kColumns, kRows), 0, stream, partials, count, out, size);
}

}  // namespace stapes::cuda
