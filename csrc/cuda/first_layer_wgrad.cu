// dw[k,r,s,c] = sum_{n,p,q} dy[n,p,q,k] * x[n, p*stride_h + r*dil_h - pad_top, q*stride_w + s*dil_w - pad_left, c]
//   and, behind ReLU and non-overlapping max pooling, the same and db[k] = sum dy from the pooled gradient and argmax
// Layout: dy (N,P,Q,K), or dy and argmax (N, P/pool_h, Q/pool_w, K) with windows of at most 64 places; x (N,H,W,C) with
//   C = 1 or 3; dw float32 (K,R,S,C), db float32 (K,); any stride, padding, dilation. float32, float16, bfloat16.
//   Coordinates fit int.
// Work: the windows (of one pixel without pooling) are split into equal parts, their number fixed by the shape. A block
//   takes one part, kTileK channels and kTaps places of the kernel; it gathers kPixels pixels at a time, a row of kTaps
//   (padded to kRow) each, in shared memory. A thread has kRun channels by kTaps sums in registers, over every
//   (kThreads / lanes)-th window: one load of dy, and a row of x that its neighbours along K read as well. With pooling
//   the row is that of the pixel which argmax names: what pooling threw away is neither read nor multiplied. db is one
//   more place of the kernel, where x is 1. The sums of a block are added in shared memory, those of the parts by
//   ordered_sum.
// Launch bounds: 128 threads; 2 or 3 blocks, since ptxas aimed at 4 on sm_86 and sm_89, and spilled.
// Numerics: exact float32 multiply-adds, whatever the dtype and precision, in an order that the shape decides. A dead
//   window (argmax 255), or a place that the window does not have, counts as dy = 0.
// Measured: not measured.
#include <algorithm>

#include "cuda/dtype.cuh"
#include "cuda/first_layer.cuh"
#include "cuda/first_layer_taps.cuh"
#include "cuda/ordered_sum.cuh"

namespace stapes::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kPixels = 64;  // gathered at a time
constexpr int kTileK = 32;

template <class T>
struct FirstLayerWgrad {
  FirstLayer sizes;
  const T *dy, *x;
  const std::uint8_t* argmax;  // null without pooling
  float* sums;                 // of each part: dw, then db
  int places, k_tiles;         // places: depth, and one for db
  std::int64_t part_windows, pitch;
  bool vectors;  // dy can be loaded kRun at a time
};

template <int kTaps>
inline constexpr int kPadded = (kTaps + 3) / 4 * 4;

// Which values a thread gathers: those of every fourth place (so that the stores of a warp meet all banks), of pixels
// that are kGatherPixels apart.
constexpr int kGatherPixels = kThreads / 4;
constexpr int kGathers = kPixels / kGatherPixels;

template <int kRow>
struct Gather {
  Pixel window[kGathers];
  int place[kGathers];  // of the pixel in its window
  Tap taps[kRow / 4];
};

template <class T, int kRow>
__device__ __forceinline__ void gather(const FirstLayerWgrad<T>& a, const Gather<kRow>& g, int first_tap,
                                       std::int64_t windows, float (&x)[kPixels][kRow]) {
  const int thread = static_cast<int>(threadIdx.x);
  const int area = a.sizes.pool_h * a.sizes.pool_w, phase = thread / 8 % 4;
#pragma unroll
  for (int i = 0; i < kGathers; ++i) {
    const int pixel = thread / 32 * 8 + thread % 8 + i * kGatherPixels;
    if (pixel / area >= windows) continue;
    const Corner<T> corner = corner_of(a.sizes, a.x, g.window[i], g.place[i]);
#pragma unroll
    for (int j = 0; j < kRow / 4; ++j) {
      const int tap = first_tap + phase + 4 * j;
      float value = tap < a.sizes.depth ? value_at(a.sizes, corner, g.taps[j]) : 0.0f;
      if (tap == a.sizes.depth) value = 1.0f;
      x[pixel][phase + 4 * j] = value;
    }
  }
}

template <int kRow>
__device__ __forceinline__ void load_row(const float (&x)[kRow], float (&row)[kRow / 4][4]) {
#pragma unroll
  for (int j = 0; j < kRow / 4; ++j) load_channels<float, 4>(&x[4 * j], row[j]);
}

// One window's dy of kRun channels, times the rows of x that belong to it.
template <class T, int kTaps, int kRun, bool kPooled>
__device__ __forceinline__ void add_window(const FirstLayerWgrad<T>& a, std::int64_t window, int pixel, int k,
                                           const float (&x)[kPixels][kPadded<kTaps>], float (&sum)[kRun][kTaps]) {
  float dy[kRun], row[kPadded<kTaps> / 4][4];
  const std::int64_t at = window * a.sizes.K + k;
  const int count = a.sizes.K - k;
  load_channels<T, kRun>(a.dy + at, count, a.vectors, dy);
  if constexpr (!kPooled) load_row(x[pixel], row);
#pragma unroll
  for (int v = 0; v < kRun; ++v) {
    if constexpr (kPooled) {
      const int place = v < count ? a.argmax[at + v] : 0;
      const bool alive = place < a.sizes.pool_h * a.sizes.pool_w;
      if (!alive) dy[v] = 0.0f;
      load_row(x[pixel + (alive ? place : 0)], row);
    }
#pragma unroll
    for (int t = 0; t < kTaps; ++t) sum[v][t] = fmaf(dy[v], row[t / 4][t % 4], sum[v][t]);
  }
}

template <class T, int kTaps, int kRun, bool kPooled>
__global__ void __launch_bounds__(kThreads, kTaps > 10 ? 2 : 3) first_layer_wgrad_kernel(FirstLayerWgrad<T> a) {
  constexpr int kRow = kPadded<kTaps>, kLanes = kTileK / kRun, kSteps = kThreads / kLanes;
  __shared__ __align__(16) float x[kPixels][kRow];
  __shared__ float sums[kThreads][kRun];  // of one place

  const int thread = static_cast<int>(threadIdx.x);
  const int first_k = static_cast<int>(blockIdx.x % static_cast<unsigned>(a.k_tiles)) * kTileK;
  const std::int64_t part = blockIdx.x / static_cast<unsigned>(a.k_tiles);
  const int first_tap = static_cast<int>(blockIdx.y) * kTaps;
  const int k = first_k + thread % kLanes * kRun;
  const int area = a.sizes.pool_h * a.sizes.pool_w, chunk = kPixels / area;

  const std::int64_t begin = part * a.part_windows, end = min(begin + a.part_windows, a.sizes.windows);
  const Pixel step = pixel_at(chunk, a.sizes.rows, a.sizes.cols);
  Gather<kRow> g;
#pragma unroll
  for (int i = 0; i < kGathers; ++i) {
    const int pixel = thread / 32 * 8 + thread % 8 + i * kGatherPixels;
    g.window[i] = pixel_at(begin + pixel / area, a.sizes.rows, a.sizes.cols);
    g.place[i] = pixel % area;
  }
#pragma unroll
  for (int j = 0; j < kRow / 4; ++j) g.taps[j] = tap_at(a.sizes, first_tap + thread / 8 % 4 + 4 * j);

  float sum[kRun][kTaps] = {};
  for (std::int64_t first = begin; first < end; first += chunk) {
    const int windows = static_cast<int>(min(end - first, std::int64_t{chunk}));
    __syncthreads();
    gather(a, g, first_tap, windows, x);
    __syncthreads();
    if (k < a.sizes.K) {
#pragma unroll 2
      for (int w = thread / kLanes; w < windows; w += kSteps) {
        add_window<T, kTaps, kRun, kPooled>(a, first + w, w * area, k, x, sum);
      }
    }
#pragma unroll
    for (int i = 0; i < kGathers; ++i) advance(g.window[i], step, a.sizes.rows, a.sizes.cols);
  }

  float* out = a.sums + part * a.pitch;
#pragma unroll
  for (int t = 0; t < kTaps; ++t) {
    __syncthreads();
#pragma unroll
    for (int v = 0; v < kRun; ++v) sums[thread][v] = sum[v][t];
    __syncthreads();
    const int tap = first_tap + t, own = first_k + thread;
    if (thread >= kTileK || own >= a.sizes.K || tap >= a.places) continue;
    float total = 0.0f;
    for (int i = 0; i < kSteps; ++i) total += sums[i * kLanes + thread / kRun][thread % kRun];
    const std::int64_t dw_size = std::int64_t{a.sizes.K} * a.sizes.depth;
    out[tap < a.sizes.depth ? std::int64_t{own} * a.sizes.depth + tap : dw_size + own] = total;
  }
}

template <class T, int kTaps, int kRun, bool kPooled>
void run(FirstLayerWgrad<T> a, float* dw, float* db, Stream stream) {
  constexpr std::int64_t kBlocks = 512;  // aimed at
  const std::int64_t K = a.sizes.K, dw_size = K * a.sizes.depth;
  const int chunk = kPixels / (a.sizes.pool_h * a.sizes.pool_w);
  a.places = a.sizes.depth + (kPooled ? 1 : 0);
  a.k_tiles = ceil_div(a.sizes.K, kTileK);
  const int tap_tiles = ceil_div(a.places, kTaps);
  a.pitch = dw_size + (kPooled ? K : 0);
  a.vectors = a.sizes.K % kRun == 0 && is_aligned(a.dy, kRun * sizeof(T));
  const std::int64_t most = std::max<std::int64_t>(kBlocks / a.k_tiles / tap_tiles, 1);
  const std::int64_t chunks = ceil_div<std::int64_t>(a.sizes.windows, chunk);
  a.part_windows = std::max<std::int64_t>(ceil_div(chunks, most), 4) * chunk;
  const std::int64_t parts = std::max<std::int64_t>(ceil_div(a.sizes.windows, a.part_windows), 1);

  const Workspace partials(static_cast<std::size_t>(parts * a.pitch) * sizeof(float), stream);
  a.sums = partials.as<float>();
  launch(first_layer_wgrad_kernel<T, kTaps, kRun, kPooled>,
         dim3(static_cast<unsigned>(parts * a.k_tiles), static_cast<unsigned>(tap_tiles)), dim3(kThreads), 0, stream,
         a);
  ordered_sum(a.sums, static_cast<int>(parts), a.pitch, dw_size, dw, stream);
  if (kPooled) ordered_sum(a.sums + dw_size, static_cast<int>(parts), a.pitch, K, db, stream);
}

// Few places of the kernel are one tile with four channels a thread, more are tiles of 28 with two.
template <class T, bool kPooled>
void run(const FirstLayerWgrad<T>& a, float* dw, float* db, Stream stream) {
  constexpr int kFewTaps = 10, kManyTaps = 28;
  if (a.sizes.depth < kFewTaps) {
    run<T, kFewTaps, 4, kPooled>(a, dw, db, stream);
  } else {
    run<T, kManyTaps, 2, kPooled>(a, dw, db, stream);
  }
}

}  // namespace

bool first_layer_wgrad(const Conv2dWgradArgs& args, Stream stream) {
  if (!is_first_layer(args.shape)) return false;
  with_cuda_dtype(args.dtype, [&]<class T>(T) {
    run<T, false>({first_layer(args.shape, 1, 1), static_cast<const T*>(args.dy), static_cast<const T*>(args.x),
                   nullptr, nullptr, 0, 0, 0, 0, false},
                  static_cast<float*>(args.dw), nullptr, stream);
  });
  return true;
}

bool first_layer_relu_max_pool2d_wgrad(const Conv2dReluMaxPool2dBwdArgs& args, Stream stream) {
  if (!is_first_layer(args.shape) || args.pool_h * args.pool_w > kPixels) return false;
  with_cuda_dtype(args.dtype, [&]<class T>(T) {
    run<T, true>({first_layer(args.shape, args.pool_h, args.pool_w), static_cast<const T*>(args.dy),
                  static_cast<const T*>(args.x), args.argmax, nullptr, 0, 0, 0, 0, false},
                 static_cast<float*>(args.dw), static_cast<float*>(args.db), stream);
  });
  return true;
}

}  // namespace stapes::cuda
