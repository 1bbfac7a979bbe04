// mse
//   fwd: loss = mean of (y - target)^2, 0 without elements
//   bwd: dy = 2 scale (y - target) / size
// Layout: any shape; the loss is float32.
// Work: fwd: a grid of at most kMaxBlocks blocks, fixed by the size, strides over units of 16 bytes; each block leaves
// one sum, and a last block adds them; where one block is enough it writes the loss itself. bwd: elementwise.cuh.
// Launch bounds: 256 threads.
// Numerics: fwd: differences and squares in float32; a thread adds its units' sums in double, and so do block and last
// block, in an order fixed by the size. bwd: in float32, rounded once. Both overwrite.
// Measured: not measured.
#include "cuda/dtype.cuh"
#include "cuda/elementwise.cuh"
#include "cuda/number.cuh"
#include "cuda/partials.cuh"
#include "ops/kernels.hpp"

namespace stapes::cuda {
namespace {

using std::int64_t;

template <class T>
__global__ void __launch_bounds__(kMapThreads)
    mse_fwd_kernel(const T* y, const T* target, int64_t size, bool whole, double* sums, float* loss) {
  constexpr int V = kVec<T>;
  __shared__ double scratch[kMapThreads / 32];
  const int64_t step = int64_t{gridDim.x} * kMapThreads * V;
  double sum = 0;
  for (int64_t at = (int64_t{blockIdx.x} * kMapThreads + threadIdx.x) * V; at < size; at += step) {
    const int n = unit_size<V>(size, at);
    float a[V], b[V], unit = 0.0f;
    load_unit<V>(y + at, n, whole, a);
    load_unit<V>(target + at, n, whole, b);
#pragma unroll
    for (int i = 0; i < V; ++i) unit += (a[i] - b[i]) * (a[i] - b[i]);
    sum += static_cast<double>(unit);
  }
  sum = block_reduce<kMapThreads>(sum, Sum{}, 0.0, scratch);
  if (threadIdx.x != 0) return;
  if (gridDim.x == 1) {
    *loss = size > 0 ? static_cast<float>(sum / static_cast<double>(size)) : 0.0f;
  } else {
    sums[blockIdx.x] = sum;
  }
}

__global__ void __launch_bounds__(kMapThreads)
    mse_last_kernel(const double* sums, int count, int64_t size, float* loss) {
  __shared__ double scratch[kMapThreads / 32];
  const double sum = sum_of_partials<kMapThreads>(sums, count, scratch);
  if (threadIdx.x == 0) *loss = static_cast<float>(sum / static_cast<double>(size));
}

struct MseGradient {
  double per_scale;  // 2 / size
  Number<double> scale;
  float factor = 0.0f;

  __device__ void start() { factor = static_cast<float>(per_scale * value_of(scale)); }
  __device__ float operator()(float y, float target) const { return (y - target) * factor; }
};

}  // namespace

void mse_fwd(const MseFwdArgs& a, Stream stream) {
  with_cuda_dtype(a.dtype, [&]<class T>(T) {
    const unsigned grid = grid_of_partials(ceil_div(a.size, int64_t{kMapThreads} * kVec<T>));
    const Workspace sums(grid * sizeof(double), stream);
    float* loss = static_cast<float*>(a.loss);
    launch(mse_fwd_kernel<T>, grid, kMapThreads, 0, stream, static_cast<const T*>(a.y), static_cast<const T*>(a.target),
           a.size, is_aligned(a.y) && is_aligned(a.target), sums.as<double>(), loss);
    if (grid > 1) {
      launch(mse_last_kernel, 1, kMapThreads, 0, stream, sums.as<double>(), static_cast<int>(grid), a.size, loss);
    }
  });
}

void mse_bwd(const MseBwdArgs& a, Stream stream) {
  with_cuda_dtype(a.dtype, [&]<class T>(T) {
    map(static_cast<T*>(a.dy), a.size, MseGradient{2.0 / static_cast<double>(a.size), a.scale}, stream,
        static_cast<const T*>(a.y), static_cast<const T*>(a.target));
  });
}

}  // namespace stapes::cuda
