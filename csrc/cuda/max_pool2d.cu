// max_pool2d
//   fwd: y[n,p,q,c] = max over the window of x, argmax = r * kernel_w + s of the first maximum in scan order; the first
//        NaN wins; padding is never chosen.
//   bwd: dx[n,h,w,c] = sum of dy over the windows covering (h, w) whose argmax is that place.
// Layout NHWC; argmax uint8 (255: dead, no gradient) or int32, dy and argmax in the layout of y. Channels by 16
//   bytes of x, and their argmax by one access, where C and all addresses allow; else one at a time.
// Work: a thread an item, V channels of a pixel of y (fwd) or dx (bwd), neighbours along the channels, then the row.
//   The backward gathers, so that overlapping windows need neither atomics nor an order of writing; argmax is only
//   compared with, so whatever it holds no access depends on it. Registers: the V channels and their places; of
//   plain 2 x 2 windows all four pixels are on their way at once.
// Launch bounds: 256 threads.
// Numerics: fwd is exact; bwd adds in float32, in scan order of the windows, and rounds once. Both overwrite.
// Source: the definition.
// Measured: not measured.
#include "cuda/pool_window.cuh"
#include "ops/kernels.hpp"

namespace stapes::cuda {
namespace {

template <class T, class A, int V, bool kPlain2x2>
__global__ void __launch_bounds__(kItemThreads) max_pool2d_fwd_kernel(MaxPool2dFwdArgs a) {
  const Window2d& w = a.window;
  const std::int64_t row = a.W * a.C;
  for_items(a.N * w.P * w.Q * (a.C / V), [&](std::int64_t item) {
    const Place at = place_of<V>(item, w.P, w.Q, a.C);
    const auto [r, s] = inside_of<kPlain2x2>(w, a.H, a.W, at.h, at.w);
    // place (0, 0) of the window: outside of the image where that is padding, and not read then
    const std::int64_t corner =
        (at.n * a.H + at.h * w.stride_h - w.pad_top) * row + (at.w * w.stride_w - w.pad_left) * a.C + at.c;
    const T* x = static_cast<const T*>(a.x);
    float best[V];
    int place[V];
    load_channels(x + (corner + r.begin * row + s.begin * a.C), best);
#pragma unroll
    for (int v = 0; v < V; ++v) place[v] = static_cast<int>(r.begin * w.kernel_w + s.begin);
    for (std::int64_t i = r.begin; i < r.end; ++i) {
      for (std::int64_t j = s.begin; j < s.end; ++j) {
        float value[V];
        load_channels(x + (corner + i * row + j * a.C), value);
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const bool take = !(value[v] <= best[v]) && best[v] == best[v];  // larger, or the first NaN
          best[v] = take ? value[v] : best[v];
          place[v] = take ? static_cast<int>(i * w.kernel_w + j) : place[v];
        }
      }
    }
    store_channels(static_cast<T*>(a.y) + item * V, best);
    Places<A, V> found;
#pragma unroll
    for (int v = 0; v < V; ++v) found[v] = static_cast<A>(place[v]);
    found.store(static_cast<A*>(a.argmax) + item * V);
  });
}

template <class T, class A, int V>
__global__ void __launch_bounds__(kItemThreads) max_pool2d_bwd_kernel(MaxPool2dBwdArgs a) {
  const Window2d& w = a.window;
  for_items(a.N * a.H * a.W * (a.C / V), [&](std::int64_t item) {
    const Place at = place_of<V>(item, a.H, a.W, a.C);
    const Range ps = covering(rows_of(w, a.H), at.h), qs = covering(columns_of(w, a.W), at.w);
    float sum[V] = {};
    for (std::int64_t p = ps.begin; p < ps.end; ++p) {
      for (std::int64_t q = qs.begin; q < qs.end; ++q) {
        const std::int64_t from = ((at.n * w.P + p) * w.Q + q) * a.C + at.c;
        const auto place =
            static_cast<int>((at.h + w.pad_top - p * w.stride_h) * w.kernel_w + at.w + w.pad_left - q * w.stride_w);
        Places<A, V> argmax;
        argmax.load(static_cast<const A*>(a.argmax) + from);
        float g[V];
        load_channels(static_cast<const T*>(a.dy) + from, g);
#pragma unroll
        for (int v = 0; v < V; ++v) sum[v] += argmax[v] == place ? g[v] : 0.0f;
      }
    }
    store_channels(static_cast<T*>(a.dx) + item * V, sum);
  });
}

template <class F>
void with_argmax(DType dtype, F&& f) {
  if (dtype == DType::kUInt8) {
    f(std::uint8_t{});
  } else {
    f(std::int32_t{});
  }
}

}  // namespace

void max_pool2d_fwd(const MaxPool2dFwdArgs& a, Stream stream) {
  with_channels(a.dtype, a.C, {a.x, a.y, a.argmax}, [&]<class T, int V>(T, std::integral_constant<int, V>) {
    with_argmax(a.argmax_dtype, [&]<class A>(A) {
      const unsigned blocks = blocks_of_items(a.N * a.window.P * a.window.Q * (a.C / V));
      auto kernel = max_pool2d_fwd_kernel<T, A, V, false>;
      if constexpr (sizeof(A) == 1) {
        if (is_plain_2x2(a.window)) kernel = max_pool2d_fwd_kernel<T, A, V, true>;
      }
      launch(kernel, blocks, kItemThreads, 0, stream, a);
    });
  });
}

void max_pool2d_bwd(const MaxPool2dBwdArgs& a, Stream stream) {
  with_channels(a.dtype, a.C, {a.dy, a.argmax, a.dx}, [&]<class T, int V>(T, std::integral_constant<int, V>) {
    with_argmax(a.argmax_dtype, [&]<class A>(A) {
      const unsigned blocks = blocks_of_items(a.N * a.H * a.W * (a.C / V));
      launch(max_pool2d_bwd_kernel<T, A, V>, blocks, kItemThreads, 0, stream, a);
    });
  });
}

}  // namespace stapes::cuda
