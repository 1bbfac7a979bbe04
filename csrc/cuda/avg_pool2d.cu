// avg_pool2d
//   fwd: y[n,p,q,c] = sum over the window of x / count
//   bwd: dx[n,h,w,c] = sum of dy / count over the windows covering (h, w)
// count is kernel_h * kernel_w, or with count_include_pad false the places in the image; a window of padding alone
// (possible then) gives 0 and passes no gradient.
// Layout NHWC. Channels by 16 bytes where C and the addresses allow; else one at a time.
// Work: a thread an item, V channels of a pixel of y (fwd) or dx (bwd), neighbours along the channels, then the row.
//   The backward gathers, so that overlapping windows need neither atomics nor an order of writing. Registers: V
//   sums; of plain 2 x 2 windows all four pixels are on their way at once.
// Launch bounds: 256 threads; 2 blocks of the backward, which spilled on sm_120 in the registers that ptxas chose.
// Numerics: sums in float32, a window's rows first, in scan order; rounded once. Both overwrite.
// Source: the definition.
// Measured: not measured.
#include "cuda/pool_window.cuh"
#include "ops/kernels.hpp"

namespace stapes::cuda {
namespace {

template <class T, int V, bool kPlain2x2>
__global__ void __launch_bounds__(kItemThreads) avg_pool2d_fwd_kernel(AvgPool2dArgs a) {
  const Window2d& w = a.window;
  const std::int64_t row = a.W * a.C;
  for_items(a.N * w.P * w.Q * (a.C / V), [&](std::int64_t item) {
    const Place at = place_of<V>(item, w.P, w.Q, a.C);
    const auto [r, s] = inside_of<kPlain2x2>(w, a.H, a.W, at.h, at.w);
    // place (0, 0) of the window: outside of the image where that is padding, and not read then
    const std::int64_t corner =
        (at.n * a.H + at.h * w.stride_h - w.pad_top) * row + (at.w * w.stride_w - w.pad_left) * a.C + at.c;
    float sum[V] = {};
    for (std::int64_t i = r.begin; i < r.end; ++i) {
      float line[V] = {};
      for (std::int64_t j = s.begin; j < s.end; ++j) {
        float x[V];
        load_channels(static_cast<const T*>(a.in) + (corner + i * row + j * a.C), x);
#pragma unroll
        for (int v = 0; v < V; ++v) line[v] += x[v];
      }
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] += line[v];
    }
    const std::int64_t inside = r.length() * s.length();
    const auto count = static_cast<float>(a.count_include_pad || inside == 0 ? w.kernel_h * w.kernel_w : inside);
#pragma unroll
    for (int v = 0; v < V; ++v) sum[v] /= count;
    store_channels(static_cast<T*>(a.out) + item * V, sum);
  });
}

template <class T, int V>
__global__ void __launch_bounds__(kItemThreads, 2) avg_pool2d_bwd_kernel(AvgPool2dArgs a) {
  const Window2d& w = a.window;
  const auto area = static_cast<float>(w.kernel_h * w.kernel_w);
  for_items(a.N * a.H * a.W * (a.C / V), [&](std::int64_t item) {
    const Place at = place_of<V>(item, a.H, a.W, a.C);
    const PoolAxis rows = rows_of(w, a.H), columns = columns_of(w, a.W);
    const Range ps = covering(rows, at.h), qs = covering(columns, at.w);
    float sum[V] = {};
    for (std::int64_t p = ps.begin; p < ps.end; ++p) {
      for (std::int64_t q = qs.begin; q < qs.end; ++q) {
        const std::int64_t inside = places_of(rows, p).length() * places_of(columns, q).length();
        const float count = a.count_include_pad ? area : static_cast<float>(inside);
        float g[V];
        load_channels(static_cast<const T*>(a.in) + ((at.n * w.P + p) * w.Q + q) * a.C + at.c, g);
#pragma unroll
        for (int v = 0; v < V; ++v) sum[v] += g[v] / count;
      }
    }
    store_channels(static_cast<T*>(a.out) + item * V, sum);
  });
}

}  // namespace

void avg_pool2d_fwd(const AvgPool2dArgs& a, Stream stream) {
  with_channels(a.dtype, a.C, {a.in, a.out}, [&]<class T, int V>(T, std::integral_constant<int, V>) {
    const unsigned blocks = blocks_of_items(a.N * a.window.P * a.window.Q * (a.C / V));
    const auto kernel = is_plain_2x2(a.window) ? avg_pool2d_fwd_kernel<T, V, true> : avg_pool2d_fwd_kernel<T, V, false>;
    launch(kernel, blocks, kItemThreads, 0, stream, a);
  });
}

void avg_pool2d_bwd(const AvgPool2dArgs& a, Stream stream) {
  with_channels(a.dtype, a.C, {a.in, a.out}, [&]<class T, int V>(T, std::integral_constant<int, V>) {
    launch(avg_pool2d_bwd_kernel<T, V>, blocks_of_items(a.N * a.H * a.W * (a.C / V)), kItemThreads, 0, stream, a);
  });
}

}  // namespace stapes::cuda
