// out[i] = sum over j < count of partials[j * pitch + i]
// Layout: `count` rows of float32, `pitch` elements apart; out float32 (size,).
// Work: a block of 32 x 16 threads takes 32 columns; thread (i, j) sums rows j, j + 16, ... of column i, and the 16
// sums
//   of a column are added by one thread.
// Launch bounds: 512 threads.
// Numerics: float32; the order depends on count alone.
// Measured: not measured.
#include "cuda/ordered_sum.cuh"
#include "cuda/runtime.cuh"

namespace stapes::cuda {
namespace {

constexpr int kColumns = 32;
constexpr int kRows = 16;

__global__ void __launch_bounds__(kColumns* kRows)
    ordered_sum_kernel(const float* partials, int count, std::int64_t pitch, std::int64_t size, float* out) {
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
    out[i] = sum;
  }
}

}  // namespace

void ordered_sum(const float* partials, int count, std::int64_t pitch, std::int64_t size, float* out, Stream stream) {
  const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(size, kColumns));
  launch(ordered_sum_kernel, dim3(blocks), dim3(kColumns, kRows), 0, stream, partials, count, pitch, size, out);
}

}  // namespace stapes::cuda
