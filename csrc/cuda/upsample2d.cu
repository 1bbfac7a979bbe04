// upsample2d, nearest neighbour
//   fwd: y[n, h * scale_h + i, w * scale_w + j, c] = x[n,h,w,c]
//   bwd: dx[n,h,w,c] = sum over i, j of dy[n, h * scale_h + i, w * scale_w + j, c]
// Layout NHWC; H and W are those of x and dx. Channels by 16 bytes where C and the addresses allow; else one at a time.
// Work: a thread an item, V channels of a pixel of y (fwd) or dx (bwd), neighbours along the channels, then the row.
// Launch bounds: 256 threads.
// Numerics: fwd is exact; bwd adds in float32, rows first, in scan order, and rounds once. Both overwrite.
// Source: the definition.
// Measured: not measured.
#include "cuda/items.cuh"
#include "ops/kernels.hpp"

namespace stapes::cuda {
namespace {

template <class T, int V>
__global__ void __launch_bounds__(kItemThreads) upsample2d_fwd_kernel(Upsample2dArgs a) {
  const std::int64_t P = a.H * a.scale_h, Q = a.W * a.scale_w;
  for_items(a.N * P * Q * (a.C / V), [&](std::int64_t item) {
    const Place at = place_of<V>(item, P, Q, a.C);
    const std::int64_t h = divide(at.h, a.scale_h).quotient, w = divide(at.w, a.scale_w).quotient;
    float x[V];
    load_channels(static_cast<const T*>(a.in) + ((at.n * a.H + h) * a.W + w) * a.C + at.c, x);
    store_channels(static_cast<T*>(a.out) + item * V, x);
  });
}

template <class T, int V>
__global__ void __launch_bounds__(kItemThreads) upsample2d_bwd_kernel(Upsample2dArgs a) {
  const std::int64_t row = a.W * a.scale_w * a.C;
  for_items(a.N * a.H * a.W * (a.C / V), [&](std::int64_t item) {
    const Place at = place_of<V>(item, a.H, a.W, a.C);
    const std::int64_t corner = (at.n * a.H + at.h) * a.scale_h * row + at.w * a.scale_w * a.C + at.c;
    float sum[V] = {};
    for (std::int64_t i = 0; i < a.scale_h; ++i) {
      float line[V] = {};
      for (std::int64_t j = 0; j < a.scale_w; ++j) {
        float dy[V];
        load_channels(static_cast<const T*>(a.in) + (corner + i * row + j * a.C), dy);
#pragma unroll
        for (int v = 0; v < V; ++v) line[v] += dy[v];
      }
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] += line[v];
    }
    store_channels(static_cast<T*>(a.out) + item * V, sum);
  });
}

}  // namespace

void upsample2d_fwd(const Upsample2dArgs& a, Stream stream) {
  with_channels(a.dtype, a.C, {a.in, a.out}, [&]<class T, int V>(T, std::integral_constant<int, V>) {
    const unsigned blocks = blocks_of_items(a.N * a.H * a.scale_h * a.W * a.scale_w * (a.C / V));
    launch(upsample2d_fwd_kernel<T, V>, blocks, kItemThreads, 0, stream, a);
  });
}

void upsample2d_bwd(const Upsample2dArgs& a, Stream stream) {
  with_channels(a.dtype, a.C, {a.in, a.out}, [&]<class T, int V>(T, std::integral_constant<int, V>) {
    launch(upsample2d_bwd_kernel<T, V>, blocks_of_items(a.N * a.H * a.W * (a.C / V)), kItemThreads, 0, stream, a);
  });
}

}  // namespace stapes::cuda
