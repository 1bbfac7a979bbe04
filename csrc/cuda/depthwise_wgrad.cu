// dw[k,r,s] = sum_{n,p,q} dy[n,p,q,k] * x[n, p*stride_h + r*dil_h - pad_top, q*stride_w + s*dil_w - pad_left, k/M]
// Layout: dy (N,P,Q,C*M), x (N,H,W,C), dw float32 (C*M,R,S,1); any stride, padding, dilation and M. float32, float16,
//   bfloat16. Coordinates fit int.
// Work: the pixels are split into equal parts, their number fixed by the shape. A block takes one part, kTaps taps and
//   up to 32 runs of kN channels (4, or 1 where C is no multiple of 4 or M > 1); its threads are lanes over channels x
//   (256 / lanes) over the part's pixels, each with kTaps * kN sums in registers. The sums of a block are added in
//   shared memory, those of the parts by ordered_sum.
// Launch bounds: 256 threads.
// Numerics: sums in float32, in an order that the shape decides.
// Measured: not measured.
#include <algorithm>

#include "cuda/channels.cuh"
#include "cuda/depthwise.cuh"
#include "cuda/dtype.cuh"
#include "cuda/ordered_sum.cuh"

namespace stapes::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTaps = 9;
constexpr int kVector = 4;
constexpr int kMostLanes = 32;
constexpr std::int64_t kBlocks = 512;      // aimed at
constexpr std::int64_t kLeastPixels = 16;  // of a thread

template <class T>
struct DepthwiseWgrad {
  const T *dy, *x;
  float* sums;  // dw, or one of them for each part
  int N, H, W, C, K, P, Q, R, S;
  int stride_h, stride_w, pad_top, pad_left, dil_h, dil_w;
  int channel_tiles;
  std::int64_t pixels, part_pixels;
  bool vectors;  // addresses allow access to kN channels at once
};

// Adds what one pixel gives to the taps from (r, s) on.
template <class T, int kN>
__device__ __forceinline__ void add_pixel(const DepthwiseWgrad<T>& a, const Pixel& at, int channel, int r, int s,
                                          float (&sum)[kTaps][kN]) {
  float dy[kN];
  load_channels<T, kN>(a.dy + ((std::int64_t{at.n} * a.P + at.i) * a.Q + at.j) * a.K + channel, kN, a.vectors, dy);
  const T* image = a.x + std::int64_t{at.n} * a.H * a.W * a.C + channel / (a.K / a.C);
  const int top = at.i * a.stride_h - a.pad_top, left = at.j * a.stride_w - a.pad_left;
#pragma unroll
  for (int t = 0; t < kTaps; ++t) {
    const int i = top + r * a.dil_h, j = left + s * a.dil_w;
    if (r < a.R && i >= 0 && i < a.H && j >= 0 && j < a.W) {
      float x[kN];
      load_channels<T, kN>(image + (i * a.W + j) * a.C, kN, a.vectors, x);
#pragma unroll
      for (int v = 0; v < kN; ++v) sum[t][v] = fmaf(dy[v], x[v], sum[t][v]);
    }
    if (++s == a.S) {
      s = 0;
      ++r;
    }
  }
}

template <class T, int kN>
__global__ void __launch_bounds__(kThreads) depthwise_wgrad_kernel(DepthwiseWgrad<T> a) {
  __shared__ float sums[kThreads][kN];  // of one tap

  const int lanes = static_cast<int>(blockDim.x), lane = static_cast<int>(threadIdx.x);
  const int rows = static_cast<int>(blockDim.y), row = static_cast<int>(threadIdx.y);
  const int first_channel = static_cast<int>(blockIdx.x % static_cast<unsigned>(a.channel_tiles)) * lanes * kN;
  const std::int64_t part = blockIdx.x / static_cast<unsigned>(a.channel_tiles);
  const int channel = first_channel + lane * kN;
  const int first_tap = static_cast<int>(blockIdx.y) * kTaps;

  float sum[kTaps][kN] = {};
  if (channel < a.K) {
    const std::int64_t end = min(a.pixels, (part + 1) * a.part_pixels);
    std::int64_t pixel = part * a.part_pixels + row;
    Pixel at = pixel_at(pixel, a.P, a.Q);
    const Pixel step = pixel_at(rows, a.P, a.Q);
    for (; pixel < end; pixel += rows) {
      add_pixel<T, kN>(a, at, channel, first_tap / a.S, first_tap % a.S, sum);
      advance(at, step, a.P, a.Q);
    }
  }

  const int taps = a.R * a.S, thread = row * lanes + lane;
  float* out = a.sums + part * a.K * taps;
#pragma unroll
  for (int t = 0; t < kTaps; ++t) {
    __syncthreads();
#pragma unroll
    for (int v = 0; v < kN; ++v) sums[thread][v] = sum[t][v];
    __syncthreads();
    if (thread < lanes * kN && first_channel + thread < a.K && first_tap + t < taps) {
      float total = 0.0f;
      for (int i = 0; i < rows; ++i) total += sums[i * lanes + thread / kN][thread % kN];
      out[std::int64_t{first_channel + thread} * taps + first_tap + t] = total;
    }
  }
}

template <class T, int kN>
void run_wgrad(DepthwiseWgrad<T> a, float* dw, Stream stream) {
  const int vectors = ceil_div(a.K, kN), taps = a.R * a.S;
  a.channel_tiles = ceil_div(vectors, kMostLanes);
  const int lanes = ceil_div(vectors, a.channel_tiles), rows = kThreads / lanes;
  a.pixels = std::int64_t{a.N} * a.P * a.Q;
  const std::int64_t most = std::max<std::int64_t>(kBlocks / a.channel_tiles, 1);
  a.part_pixels = std::max(ceil_div(a.pixels, most), rows * kLeastPixels);
  const std::int64_t parts = std::max<std::int64_t>(ceil_div(a.pixels, a.part_pixels), 1);
  const std::int64_t size = std::int64_t{a.K} * taps;

  const Workspace partials(parts > 1 ? static_cast<std::size_t>(parts * size) * sizeof(float) : 0, stream);
  a.sums = parts > 1 ? partials.as<float>() : dw;
  const dim3 grid(static_cast<unsigned>(parts * a.channel_tiles), static_cast<unsigned>(ceil_div(taps, kTaps)));
  const dim3 block(static_cast<unsigned>(lanes), static_cast<unsigned>(rows));
  launch(depthwise_wgrad_kernel<T, kN>, grid, block, 0, stream, a);
  if (parts > 1) ordered_sum(a.sums, static_cast<int>(parts), size, size, dw, stream);
}

}  // namespace

bool depthwise_wgrad(const Conv2dWgradArgs& args, Stream stream) {
  constexpr std::int64_t kMostTapTiles = 65535;
  const Conv2dShape& s = args.shape;
  const Window2d& w = s.window;
  if (!is_depthwise(s) || !fits_int(s) || w.kernel_h * w.kernel_w > kTaps * kMostTapTiles) return false;
  with_cuda_dtype(args.dtype, [&]<class T>(T) {
    DepthwiseWgrad<T> a{static_cast<const T*>(args.dy),
                        static_cast<const T*>(args.x),
                        nullptr,
                        narrow(s.N),
                        narrow(s.H),
                        narrow(s.W),
                        narrow(s.C),
                        narrow(s.K),
                        narrow(w.P),
                        narrow(w.Q),
                        narrow(w.kernel_h),
                        narrow(w.kernel_w),
                        narrow(w.stride_h),
                        narrow(w.stride_w),
                        narrow(w.pad_top),
                        narrow(w.pad_left),
                        narrow(w.dil_h),
                        narrow(w.dil_w),
                        0,
                        0,
                        0,
                        false};
    auto* dw = static_cast<float*>(args.dw);
    constexpr std::size_t kBytes = kVector * sizeof(T);
    a.vectors = is_aligned(args.dy, kBytes) && is_aligned(args.x, kBytes);
    if (s.K == s.C && s.C % kVector == 0) {
      run_wgrad<T, kVector>(a, dw, stream);
    } else {
      run_wgrad<T, 1>(a, dw, stream);
    }
  });
  return true;
}

}  // namespace stapes::cuda
