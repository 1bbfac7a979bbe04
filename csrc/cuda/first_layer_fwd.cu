// y[n,p,q,k] = act(sum_{r,s,c} x[n, p*stride_h + r*dil_h - pad_top, q*stride_w + s*dil_w - pad_left, c] * w[k,r,s,c]
//   + b[k]), and the same with ReLU and non-overlapping max pooling behind it
// Layout: x (N,H,W,C) with C = 1 or 3, w (K,R,S,C), b float32 or null; y (N,P,Q,K), or y and argmax (N, P/pool_h,
//   Q/pool_w, K) with windows of 1, 2 or 4 places; any stride, padding, dilation. float32, float16, bfloat16.
//   Coordinates fit int.
// Work: im2col in shared memory, and a matrix product by multiply-adds. A block has kPixels pixels and kTileK channels
//   at a time; kDepth places of the kernel at a time are gathered, one pixel a thread. A thread has 4 pixels by 2 x 4
//   channels in registers. The pixels of a window are neighbours (first_layer_taps.cuh), so that a thread has whole
//   windows: bias, ReLU, maximum and argmax are taken in registers, and the map before pooling is never written.
//   Blocks: x over pixels; y shares out the tiles of K where there are few pixels, else a block goes through all of
//   them and gathers once (if kDepth holds the kernel).
// Launch bounds: 128 threads.
// Numerics: exact float32 multiply-adds in the order of w, whatever the dtype and precision; rounded once. The maximum
//   is taken before ReLU and before rounding: a window whose largest value is <= 0 is dead (y = 0, argmax 255), NaN
//   never is, and the first NaN wins.
// Measured: not measured.
#include <algorithm>

#include "cuda/dtype.cuh"
#include "cuda/first_layer.cuh"
#include "cuda/first_layer_taps.cuh"
#include "cuda/window_max.cuh"

namespace stapes::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kPixels = 128;  // of a block
constexpr int kTileK = 32;
constexpr int kLanes = kTileK / 8;  // threads along K
constexpr int kDepth = 32;
constexpr int kPitch = kTileK + 4;  // of weights: so that neighbours in depth lie in different banks

template <class T>
struct FirstLayerFwd {
  FirstLayer sizes;
  const T *x, *w;
  const float* b;
  T* y;
  std::uint8_t* argmax;
  bool relu, vectors;  // vectors: y and argmax can be stored four at a time
};

struct Tiles {
  __align__(16) float x[kDepth][kPixels];
  __align__(16) float w[kDepth][kPitch];
};

template <class T>
__device__ __forceinline__ void gather(const FirstLayer& a, const Corner<T>& corner, int first, int count,
                                       Tiles& tiles) {
  Tap tap = tap_at(a, first);
#pragma unroll 4
  for (int d = 0; d < count; ++d) {
    tiles.x[d][threadIdx.x] = value_at(a, corner, tap);
    next(a, tap);
  }
}

template <class T>
__device__ __forceinline__ void load_weights(const FirstLayer& a, const T* w, int first_k, int first, int count,
                                             Tiles& tiles) {
  for (int i = static_cast<int>(threadIdx.x); i < kTileK * count; i += kThreads) {
    const int d = i % count, k = first_k + i / count;
    tiles.w[d][i / count] = k < a.K ? to_float(w[std::int64_t{k} * a.depth + first + d]) : 0.0f;
  }
}

// sum[pixel][channel]: channels 4 * lane + {0..3}, and 16 more.
__device__ __forceinline__ void multiply(const Tiles& tiles, int count, int pixel, int lane, float (&sum)[4][8]) {
#pragma unroll 4
  for (int d = 0; d < count; ++d) {
    float x[4], w[2][4];
    load_channels<float, 4>(&tiles.x[d][pixel], x);
    load_channels<float, 4>(&tiles.w[d][4 * lane], w[0]);
    load_channels<float, 4>(&tiles.w[d][4 * lane + kTileK / 2], w[1]);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int k = 0; k < 8; ++k) sum[i][k] = fmaf(x[i], w[k / 4][k % 4], sum[i][k]);
  }
}

// kArea: places of a window; 0 without pooling.
template <class T, int kArea>
__device__ __forceinline__ void store(const FirstLayerFwd<T>& a, std::int64_t first_window, int first_k,
                                      float (&sum)[4][8]) {
  constexpr int kPlaces = kArea > 0 ? kArea : 1;
  const int K = a.sizes.K;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int k = first_k + half * (kTileK / 2), count = K - k;
    if (count <= 0) return;
    float bias[4] = {};
    if (a.b != nullptr) load_channels<float, 4>(a.b + k, count, false, bias);
#pragma unroll
    for (int i = 0; i < 4 / kPlaces; ++i) {
      const std::int64_t window = first_window + i;
      if (window >= a.sizes.windows) break;
      float y[4];
      uchar4 places{};
      std::uint8_t* place[4] = {&places.x, &places.y, &places.z, &places.w};
#pragma unroll
      for (int v = 0; v < 4; ++v) {
        float z[kPlaces];
#pragma unroll
        for (int p = 0; p < kPlaces; ++p) z[p] = sum[i * kPlaces + p][half * 4 + v] + bias[v];
        if constexpr (kArea > 0) {
          const WindowMax most = window_max(z);
          y[v] = most.value;
          *place[v] = static_cast<std::uint8_t>(most.place);
        } else {
          y[v] = a.relu ? relu(z[0]) : z[0];
        }
      }
      store_channels<T, 4>(a.y + window * K + k, count, a.vectors, y);
      if constexpr (kArea > 0) {
        std::uint8_t* argmax = a.argmax + window * K + k;
        if (a.vectors && count >= 4) {
          store_vec(argmax, places);
        } else {
          for (int v = 0; v < 4; ++v)
            if (v < count) argmax[v] = *place[v];
        }
      }
    }
  }
}

template <class T, int kArea>
__global__ void __launch_bounds__(kThreads) first_layer_fwd_kernel(FirstLayerFwd<T> a) {
  constexpr int kPlaces = kArea > 0 ? kArea : 1;
  __shared__ Tiles tiles;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kLanes, pixel = thread / kLanes * 4;
  const std::int64_t first_window = std::int64_t{blockIdx.x} * (kPixels / kPlaces);
  const std::int64_t own = min(first_window + thread / kPlaces, a.sizes.windows - 1);
  const Corner<T> corner = corner_of(a.sizes, a.x, pixel_at(own, a.sizes.rows, a.sizes.cols), thread % kPlaces);

  bool gathered = false;
  const int step = static_cast<int>(gridDim.y) * kTileK;
  for (int first_k = static_cast<int>(blockIdx.y) * kTileK; first_k < a.sizes.K; first_k += step) {
    float sum[4][8] = {};
    for (int first = 0; first < a.sizes.depth; first += kDepth) {
      const int count = min(kDepth, a.sizes.depth - first);
      __syncthreads();
      if (!gathered) gather(a.sizes, corner, first, count, tiles);
      load_weights(a.sizes, a.w, first_k, first, count, tiles);
      __syncthreads();
      multiply(tiles, count, pixel, lane, sum);
      gathered = a.sizes.depth <= kDepth;
    }
    store<T, kArea>(a, first_window + pixel / kPlaces, first_k + 4 * lane, sum);
  }
}

template <class T, int kArea>
void run(const FirstLayerFwd<T>& a, Stream stream) {
  constexpr std::int64_t kEnoughBlocks = 1024;
  constexpr int kPlaces = kArea > 0 ? kArea : 1;
  const std::int64_t blocks = ceil_div<std::int64_t>(a.sizes.windows, kPixels / kPlaces);
  if (blocks == 0) return;
  const std::int64_t shares = std::min<std::int64_t>(ceil_div(a.sizes.K, kTileK), ceil_div(kEnoughBlocks, blocks));
  launch(first_layer_fwd_kernel<T, kArea>, dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(shares)),
         dim3(kThreads), 0, stream, a);
}

template <class T, class Args>
FirstLayerFwd<T> arguments(const Args& args, std::int64_t pool_h, std::int64_t pool_w, std::uint8_t* argmax,
                           bool relu) {
  const bool vectors = args.shape.K % 4 == 0 && is_aligned(args.y, 4 * sizeof(T)) && is_aligned(argmax, 4);
  return {first_layer(args.shape, pool_h, pool_w),
          static_cast<const T*>(args.x),
          static_cast<const T*>(args.w),
          static_cast<const float*>(args.b),
          static_cast<T*>(args.y),
          argmax,
          relu,
          vectors};
}

}  // namespace

bool first_layer_fwd(const Conv2dFwdArgs& args, Stream stream) {
  if (!is_first_layer(args.shape)) return false;
  with_cuda_dtype(args.dtype, [&]<class T>(T) { run<T, 0>(arguments<T>(args, 1, 1, nullptr, args.relu), stream); });
  return true;
}

bool first_layer_relu_max_pool2d_fwd(const Conv2dReluMaxPool2dFwdArgs& args, Stream stream) {
  const std::int64_t area = args.pool_h * args.pool_w;
  if (!is_first_layer(args.shape) || (area != 1 && area != 2 && area != 4)) return false;
  with_cuda_dtype(args.dtype, [&]<class T>(T) {
    const auto a = arguments<T>(args, args.pool_h, args.pool_w, args.argmax, true);
    if (area == 1) return run<T, 1>(a, stream);
    if (area == 2) return run<T, 2>(a, stream);
    run<T, 4>(a, stream);
  });
  return true;
}

}  // namespace stapes::cuda
