// softmax over the last axis
//   fwd: y = exp(x - max(x)) / sum(exp(x - max(x)))
//   bwd: dx = y * (dy - sum(dy * y))
// Layout: C-contiguous rows; y may be x, and dx may be dy.
// Work: a row is one group's (rows.cuh): 8 lanes for up to 32 columns, a warp for up to 1024, else a block of 256, in
// a grid-stride loop over rows. A thread reads its columns once for each sum or maximum and once more to write; after
// the first time they come from the cache.
// Launch bounds: 256 threads.
// Numerics: the maximum is taken off first, so nothing overflows; sums in float32, in an order fixed by the number of
// columns. A row with NaN or +inf, or of -inf alone, becomes NaN. Both overwrite.
// Measured: not measured.
#include <cmath>

#include "cuda/dtype.cuh"
#include "cuda/elementwise.cuh"
#include "cuda/rows.cuh"
#include "ops/kernels.hpp"

namespace stapes::cuda {
namespace {

using std::int64_t;

// f(first element, columns) for each row of this thread's group; without columns where the group has no row left, since
// the block's threads reduce together.
template <int Lanes, class F>
__device__ __forceinline__ void for_rows(int64_t rows, int64_t columns, const F& f) {
  constexpr int kRows = kRowsPerBlock<Lanes>;
  const int group = static_cast<int>(threadIdx.x) / Lanes;
  for (int64_t first = int64_t{blockIdx.x} * kRows; first < rows; first += int64_t{gridDim.x} * kRows) {
    const int64_t row = first + group;
    f(row * columns, row < rows ? columns : 0);
  }
}

template <class T, int Lanes>
__global__ void __launch_bounds__(kRowThreads) softmax_fwd_kernel(const T* x, T* y, int64_t rows, int64_t columns) {
  __shared__ RowScratch<float> scratch;
  const int lane = static_cast<int>(threadIdx.x) % Lanes;
  for_rows<Lanes>(rows, columns, [&](int64_t at, int64_t n) {
    float most = -INFINITY;
    for (int64_t c = lane; c < n; c += Lanes) most = Max{}(most, to_float(x[at + c]));
    most = row_reduce<Lanes>(most, Max{}, -INFINITY, scratch);
    float sum = 0.0f;
    for (int64_t c = lane; c < n; c += Lanes) sum += expf(to_float(x[at + c]) - most);
    sum = row_reduce<Lanes>(sum, Sum{}, 0.0f, scratch);
    for (int64_t c = lane; c < n; c += Lanes) y[at + c] = from_float<T>(expf(to_float(x[at + c]) - most) / sum);
  });
}

template <class T, int Lanes>
__global__ void __launch_bounds__(kRowThreads)
    softmax_bwd_kernel(const T* dy, const T* y, T* dx, int64_t rows, int64_t columns) {
  __shared__ RowScratch<float> scratch;
  const int lane = static_cast<int>(threadIdx.x) % Lanes;
  for_rows<Lanes>(rows, columns, [&](int64_t at, int64_t n) {
    float dot = 0.0f;
    for (int64_t c = lane; c < n; c += Lanes) dot += to_float(dy[at + c]) * to_float(y[at + c]);
    dot = row_reduce<Lanes>(dot, Sum{}, 0.0f, scratch);
    for (int64_t c = lane; c < n; c += Lanes) {
      dx[at + c] = from_float<T>(to_float(y[at + c]) * (to_float(dy[at + c]) - dot));
    }
  });
}

template <class Args, class F>
void for_instance(const Args& a, const F& f) {
  if (a.columns == 0) return;
  with_cuda_dtype(a.dtype, [&]<class T>(T) { with_lanes(a.columns, [&](auto lanes) { f(T{}, lanes); }); });
}

}  // namespace

void softmax_fwd(const SoftmaxFwdArgs& a, Stream stream) {
  for_instance(a, [&]<class T, int Lanes>(T, std::integral_constant<int, Lanes>) {
    const unsigned grid = grid_for(ceil_div(a.rows, int64_t{kRowsPerBlock<Lanes>}));
    launch(softmax_fwd_kernel<T, Lanes>, grid, kRowThreads, 0, stream, static_cast<const T*>(a.x), static_cast<T*>(a.y),
           a.rows, a.columns);
  });
}

void softmax_bwd(const SoftmaxBwdArgs& a, Stream stream) {
  for_instance(a, [&]<class T, int Lanes>(T, std::integral_constant<int, Lanes>) {
    const unsigned grid = grid_for(ceil_div(a.rows, int64_t{kRowsPerBlock<Lanes>}));
    launch(softmax_bwd_kernel<T, Lanes>, grid, kRowThreads, 0, stream, static_cast<const T*>(a.dy),
           static_cast<const T*>(a.y), static_cast<T*>(a.dx), a.rows, a.columns);
  });
}

}  // namespace stapes::cuda
