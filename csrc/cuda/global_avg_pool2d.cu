// global_avg_pool2d
//   fwd: y[n,c] = sum over the image of x[n,:,:,c] / (H * W)
//   bwd: dx[n,h,w,c] = dy[n,c] / (H * W)
// Layout NHWC. Channels by 16 bytes where C and the addresses allow; else one at a time.
// Work: fwd: images of more than kPiece pixels are cut into pieces of as many, whose sums a second launch of the same
// kernel adds. A block takes a piece and a group of channels: each of its threads adds every blockDim.y-th pixel, then
// they join along a tree. bwd: a thread an item, V channels of a pixel of dx.
// Launch bounds: 256 threads, 4 blocks. Shared memory: 4 or 8 KB, the tree's.
// Numerics: sums in float32, in an order fixed by the shape; rounded once. Both overwrite.
// Source: the definition.
// Measured: not measured.
#include "cuda/columns.cuh"
#include "ops/kernels.hpp"

namespace stapes::cuda {
namespace {

constexpr std::int64_t kPiece = 1024;

// in (N, pixels, C) to out (N, pieces, C): sums over `piece` pixels each, divided by `divisor`.
struct SumPixels {
  const void* in;
  void* out;
  std::int64_t N, pixels, C, piece;
  float divisor;

  __host__ __device__ std::int64_t pieces() const { return ceil_div(pixels, piece); }
};

template <class In, class Out, int V>
__global__ void __launch_bounds__(kColumnThreads, 4) sum_pixels_kernel(SumPixels a, std::int64_t groups) {
  __shared__ float shared[V * kColumnThreads];
  const std::int64_t pieces = a.pieces(), tiles = a.N * pieces * groups;
  for (std::int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const Division group = divide(tile, groups), piece = divide(group.quotient, pieces);
    const std::int64_t c = thread_channel<V>(group.remainder);
    const std::int64_t begin = piece.remainder * a.piece, end = min(begin + a.piece, a.pixels);
    const In* in = static_cast<const In*>(a.in) + piece.quotient * a.pixels * a.C + c;
    float sum[V] = {};
    if (c < a.C) {
#pragma unroll 4
      for (std::int64_t i = begin + threadIdx.y; i < end; i += blockDim.y) {
        float x[V];
        if constexpr (sizeof(In) == 4) {
          load_values<V>(reinterpret_cast<const float*>(in + i * a.C), x);
        } else {
          load_channels(in + i * a.C, x);
        }
#pragma unroll
        for (int v = 0; v < V; ++v) sum[v] += x[v];
      }
    }
    reduce_rows(sum, shared, AddAll{});
    if (c < a.C && threadIdx.y == 0) {
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] /= a.divisor;
      Out* out = static_cast<Out*>(a.out) + group.quotient * a.C + c;
      if constexpr (sizeof(Out) == 4) {
        store_values<V>(reinterpret_cast<float*>(out), sum);
      } else {
        store_channels(out, sum);
      }
    }
    __syncthreads();  // the next tile writes `shared`
  }
}

template <class T, class In, class Out, int V>
void sum_pixels(const SumPixels& a, Stream stream) {
  const dim3 block = column_block<V>(column_height<T>(a.pixels < a.piece ? a.pixels : a.piece, a.C), a.C);
  const std::int64_t groups = column_groups<V>(block, a.C);
  const unsigned blocks = blocks_of_items(a.N * a.pieces() * groups * kItemThreads);
  launch(sum_pixels_kernel<In, Out, V>, blocks, block, 0, stream, a, groups);
}

template <class T, int V>
__global__ void __launch_bounds__(kItemThreads) global_avg_pool2d_bwd_kernel(GlobalAvgPool2dArgs a) {
  for_items(a.N * a.pixels * (a.C / V), [&](std::int64_t item) {
    const Division pixel = divide(item, a.C / V);
    const std::int64_t n = divide(pixel.quotient, a.pixels).quotient;
    float dy[V];
    load_channels(static_cast<const T*>(a.in) + n * a.C + pixel.remainder * V, dy);
#pragma unroll
    for (int v = 0; v < V; ++v) dy[v] /= static_cast<float>(a.pixels);
    store_channels(static_cast<T*>(a.out) + item * V, dy);
  });
}

}  // namespace

void global_avg_pool2d_fwd(const GlobalAvgPool2dArgs& a, Stream stream) {
  const auto divisor = static_cast<float>(a.pixels);
  const std::int64_t pieces = ceil_div(a.pixels, kPiece);
  with_channels(a.dtype, a.C, {a.in, a.out}, [&]<class T, int V>(T, std::integral_constant<int, V>) {
    if (pieces == 1) return sum_pixels<T, T, T, V>({a.in, a.out, a.N, a.pixels, a.C, kPiece, divisor}, stream);
    const Workspace partial(static_cast<std::size_t>(a.N * pieces * a.C) * sizeof(float), stream);
    sum_pixels<T, T, float, V>({a.in, partial.data(), a.N, a.pixels, a.C, kPiece, 1.0f}, stream);
    sum_pixels<T, float, T, V>({partial.data(), a.out, a.N, pieces, a.C, pieces, divisor}, stream);
  });
}

void global_avg_pool2d_bwd(const GlobalAvgPool2dArgs& a, Stream stream) {
  with_channels(a.dtype, a.C, {a.in, a.out}, [&]<class T, int V>(T, std::integral_constant<int, V>) {
    const unsigned blocks = blocks_of_items(a.N * a.pixels * (a.C / V));
    launch(global_avg_pool2d_bwd_kernel<T, V>, blocks, kItemThreads, 0, stream, a);
  });
}

}  // namespace stapes::cuda
