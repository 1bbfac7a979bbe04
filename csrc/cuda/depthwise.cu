// fwd:   y[n,p,q,k] = act(sum_{r,s} x[n, p*stride_h + r*dil_h - pad_top, q*stride_w + s*dil_w - pad_left, k/M] *
//        w[k,r,s] + b[k])
// dgrad: dx[n,h,w,c] = sum_{m,r,s} dy[n,p,q,cM+m] * w[cM+m,r,s], of the (p,q) whose tap (r,s) is (h,w)
// Layout: x, dx (N,H,W,C), w (C*M,R,S,1), b float32 or null, y, dy (N,P,Q,C*M): one group a channel; any stride,
//   padding, dilation and M. float32, float16, bfloat16. Coordinates fit int.
// Work: both are one kernel, "out" from "in": they differ in which place of `in` a tap of `out` meets (Axis). A thread
//   has kRun neighbours along a row by kN channels (4, or 1 where C or an address does not allow that, and where M >
//   1), summed in registers. A block has lanes x (256 / lanes) threads over channels and runs; its weights lie in
//   shared memory, kTapChunk taps at a time. With vectors, S = 3 and taps that are neighbours, a run loads its kRun + 2
//   places of a row once and slides over them.
// Launch bounds: 256 threads, 2 blocks an SM.
// Numerics: sums in float32, in the order of the taps, padding counting as zero; rounded once. The same bits with
//   vectors and without.
// Measured: not measured.
#include <algorithm>

#include "cuda/channels.cuh"
#include "cuda/depthwise.cuh"
#include "cuda/dtype.cuh"

namespace stapes::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRun = 4;
constexpr int kVector = 4;
constexpr int kTapChunk = 12;   // a multiple of every kSpan
constexpr int kMostLanes = 32;  // threads along channels

// Along one axis, tap r of place i of `out` meets place (i * mul + off + r * step) / div of `in`, where that is whole.
constexpr int kNone = -1, kPadding = -2;

struct Axis {
  int mul, off, step, div, size;

  __device__ __forceinline__ int at(int i, int r) const {
    int place = i * mul + off + r * step;
    if (div > 1) {
      if (place % div != 0) return kNone;
      place /= div;
    }
    return place >= 0 && place < size ? place : kPadding;
  }
};

template <class T>
struct Depthwise {
  const T *in, *w;
  const float* b;
  T* out;
  Axis y, x;
  int rows, cols, channels;  // of out
  int in_channels, in_per_out, out_per_in;
  int R, S;
  bool flip;  // taps of a row come last to first
  bool relu;
  int channel_tiles;
  std::int64_t runs;
};

template <class T, int kN, int kSpan>
__device__ __forceinline__ void add_tap_row(const Depthwise<T>& a, const T* row, bool inside, int j, const float* w,
                                            int w_pitch, float (&sum)[kRun][kN]) {
  float in[kRun + kSpan - 1][kN];
#pragma unroll
  for (int i = 0; i < kRun + kSpan - 1; ++i) {
    const int at = j + a.x.off + i;
#pragma unroll
    for (int v = 0; v < kN; ++v) in[i][v] = 0.0f;
    if (inside && at >= 0 && at < a.x.size) load_channels<T, kN>(row + at * a.in_channels, in[i]);
  }
#pragma unroll
  for (int s = 0; s < kSpan; ++s) {
    float weight[kN];
    load_channels<float, kN>(w + s * w_pitch, weight);
#pragma unroll
    for (int i = 0; i < kRun; ++i)
#pragma unroll
      for (int v = 0; v < kN; ++v) sum[i][v] = fmaf(in[i + s][v], weight[v], sum[i][v]);
  }
}

template <class T, int kN>
__device__ __forceinline__ void add_tap(const Depthwise<T>& a, const T* row, bool inside, int j, int s, const float* w,
                                        float (&sum)[kRun][kN]) {
  float weight[kN];
  load_channels<float, kN>(w, weight);
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    const int at = a.x.at(j + i, s);
    if (at == kNone) continue;
    float in[kN] = {};
    if (inside && at >= 0) load_channels<T, kN>(row + at * a.in_channels, in);
#pragma unroll
    for (int v = 0; v < kN; ++v) sum[i][v] = fmaf(in[v], weight[v], sum[i][v]);
  }
}

// kSpan: S where a run slides over its row, else 1.
template <class T, int kN, int kSpan>
__global__ void __launch_bounds__(kThreads, 2) depthwise_kernel(Depthwise<T> a) {
  constexpr int kPitch = kMostLanes * kN + 4;  // 4 more, so that taps of a channel lie in different banks
  __shared__ __align__(16) float weights[kTapChunk * kPitch];

  const int lanes = static_cast<int>(blockDim.x), lane = static_cast<int>(threadIdx.x);
  const int thread = static_cast<int>(threadIdx.y) * lanes + lane, threads = lanes * static_cast<int>(blockDim.y);
  const int first_channel = static_cast<int>(blockIdx.x % static_cast<unsigned>(a.channel_tiles)) * lanes * kN;
  const std::int64_t run = std::int64_t{blockIdx.x / static_cast<unsigned>(a.channel_tiles)} * blockDim.y + threadIdx.y;
  const int channel = first_channel + lane * kN;
  const bool active = run < a.runs && channel < a.channels;

  const int row_runs = ceil_div(a.cols, kRun);
  const Pixel at = pixel_at(active ? run : 0, a.rows, row_runs);
  const int j = at.j * kRun;
  const T* image =
      a.in + std::int64_t{at.n} * a.y.size * a.x.size * a.in_channels + channel / a.out_per_in * a.in_per_out;

  const int taps = a.in_per_out * a.R * a.S;
  const int tile = min(lanes * kN, a.channels - first_channel);
  float sum[kRun][kN] = {};
  int m = 0, r = 0, s = 0;  // of the tap
  for (int first = 0; first < taps; first += kTapChunk) {
    const int count = min(kTapChunk, taps - first);
    __syncthreads();
    for (int i = thread; i < tile * count; i += threads) {
      const int c = i / count, t = i % count, tap = first + t;
      const int flipped = a.flip ? tap + a.S - 1 - 2 * (tap % a.S) : tap;
      weights[t * kPitch + c] = to_float(a.w[std::int64_t{first_channel + c} * taps + flipped]);
    }
    __syncthreads();
    for (int t = 0; t < count; t += kSpan) {
      const int i = a.y.at(at.i, r);
      if (active && i != kNone) {
        const T* row = image + i * a.x.size * a.in_channels + m;
        const float* w = weights + t * kPitch + lane * kN;
        if constexpr (kSpan > 1) {
          add_tap_row<T, kN, kSpan>(a, row, i >= 0, j, w, kPitch, sum);
        } else {
          add_tap<T, kN>(a, row, i >= 0, j, s, w, sum);
        }
      }
      s += kSpan;
      if (s == a.S) {
        s = 0;
        if (++r == a.R) {
          r = 0;
          ++m;
        }
      }
    }
  }

  if (!active) return;
  T* out = a.out + ((std::int64_t{at.n} * a.rows + at.i) * a.cols + j) * a.channels + channel;
#pragma unroll
  for (int v = 0; v < kN; ++v) {
    const float bias = a.b != nullptr ? a.b[channel + v] : 0.0f;
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      sum[i][v] += bias;
      if (a.relu) sum[i][v] = relu(sum[i][v]);
    }
  }
#pragma unroll
  for (int i = 0; i < kRun; ++i)
    if (j + i < a.cols) store_channels<T, kN>(out + i * a.channels, sum[i]);
}

template <class T, int kN>
void run_depthwise(Depthwise<T> a, std::int64_t images, Stream stream) {
  const int vectors = ceil_div(a.channels, kN);
  a.channel_tiles = ceil_div(vectors, kMostLanes);
  const int lanes = ceil_div(vectors, a.channel_tiles);
  a.runs = images * a.rows * ceil_div(a.cols, kRun);
  const dim3 block(static_cast<unsigned>(lanes), static_cast<unsigned>(kThreads / lanes));
  const std::int64_t blocks = ceil_div<std::int64_t>(a.runs, block.y) * a.channel_tiles;
  const dim3 grid(static_cast<unsigned>(blocks));
  if constexpr (kN > 1) {
    const bool slides = a.S == 3 && a.x.mul == 1 && a.x.step == 1 && a.x.div == 1;
    if (slides) return launch(depthwise_kernel<T, kN, 3>, grid, block, 0, stream, a);
  }
  launch(depthwise_kernel<T, kN, 1>, grid, block, 0, stream, a);
}

template <class T>
void run_depthwise(Depthwise<T> a, std::int64_t images, Stream stream) {
  if (a.x.div == 1 && a.x.step < 0) {  // rightwards, so that a row can be slid over
    a.x.off += (a.S - 1) * a.x.step;
    a.x.step = -a.x.step;
    a.flip = true;
  }
  const bool vectors = a.in_per_out == 1 && a.out_per_in == 1 && a.channels % kVector == 0 &&
                       is_aligned(a.in, kVector * sizeof(T)) && is_aligned(a.out, kVector * sizeof(T));
  if (vectors) {
    run_depthwise<T, kVector>(a, images, stream);
  } else {
    run_depthwise<T, 1>(a, images, stream);
  }
}

}  // namespace

bool depthwise_fwd(const Conv2dFwdArgs& args, Stream stream) {
  const Conv2dShape& s = args.shape;
  const Window2d& w = s.window;
  if (!is_depthwise(s) || !fits_int(s)) return false;
  with_cuda_dtype(args.dtype, [&]<class T>(T) {
    const Axis y{narrow(w.stride_h), -narrow(w.pad_top), narrow(w.dil_h), 1, narrow(s.H)};
    const Axis x{narrow(w.stride_w), -narrow(w.pad_left), narrow(w.dil_w), 1, narrow(s.W)};
    run_depthwise<T>({static_cast<const T*>(args.x), static_cast<const T*>(args.w), static_cast<const float*>(args.b),
                      static_cast<T*>(args.y), y, x, narrow(w.P), narrow(w.Q), narrow(s.K), narrow(s.C), 1,
                      narrow(s.K / s.C), narrow(w.kernel_h), narrow(w.kernel_w), false, args.relu, 0, 0},
                     s.N, stream);
  });
  return true;
}

bool depthwise_dgrad(const Conv2dDgradArgs& args, Stream stream) {
  const Conv2dShape& s = args.shape;
  const Window2d& w = s.window;
  if (!is_depthwise(s) || !fits_int(s)) return false;
  with_cuda_dtype(args.dtype, [&]<class T>(T) {
    const Axis y{1, narrow(w.pad_top), -narrow(w.dil_h), narrow(w.stride_h), narrow(w.P)};
    const Axis x{1, narrow(w.pad_left), -narrow(w.dil_w), narrow(w.stride_w), narrow(w.Q)};
    run_depthwise<T>({static_cast<const T*>(args.dy), static_cast<const T*>(args.w), static_cast<const float*>(args.b),
                      static_cast<T*>(args.dx), y, x, narrow(s.H), narrow(s.W), narrow(s.C), narrow(s.K),
                      narrow(s.K / s.C), 1, narrow(w.kernel_h), narrow(w.kernel_w), false, false, 0, 0},
                     s.N, stream);
  });
  return true;
}

}  // namespace stapes::cuda
