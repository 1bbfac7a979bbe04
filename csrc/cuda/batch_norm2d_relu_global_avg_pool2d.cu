// batch_norm2d_relu_global_avg_pool2d
//   fwd: z = (x - mean) * scale + shift as batch_norm2d_fwd's y; y[n,c] = sum over the image of max(0, z) / (H * W)
//        kept = (mean, scale, shift, rstd), from which the backward makes z again
//        alive = for each image and channel the share of pixels where z > 0 (or NaN), and the mean of x - mean there
//   bwd: g[n,h,w,c] = dy[n,c] / (H * W) where z > 0 (or NaN), else 0; dx, dgamma and dbeta are batch_norm2d_bwd's of g
// Layout NHWC. Channels by 16 bytes where C and the addresses allow; else one at a time.
// Work: fwd: behind the statistics of batch_norm2d_fwd, a block takes a piece of up to kPiece pixels of an image and a
//   group of channels: two sums each, joined along a tree; then a thread an image and channel adds the pieces. So x is
//   read twice and z never written. bwd: the sums over pixels follow from `alive`, of N rows instead of N * H * W; then
//   a thread an item, V channels of a pixel of dx. Registers: three or six coefficients and two sums of V channels.
//   Shared memory: up to 16 KB.
// Launch bounds: 256 threads.
// Numerics: z and sums in float32, in an order fixed by shape and dtype; y rounded once. The same bits on every run.
//   Overwrites.
// Source: the definition; for the statistics and gradients see batch_norm2d_fwd.cu and batch_norm2d_bwd.cu.
// Measured: not measured.
#include "cuda/batch_norm2d.cuh"
#include "cuda/items.cuh"

namespace stapes::cuda {
namespace {

constexpr std::int64_t kPiece = 256;

// Pieces of images, none of which has pixels of two.
struct ImagePieces {
  std::int64_t N, pixels;

  __host__ __device__ std::int64_t of_image() const { return ceil_div(pixels, kPiece); }
  __host__ __device__ std::int64_t count() const { return N * of_image(); }
};

// sums: for each piece (2, C), how many pixels are alive, and their x - mean.
template <class T, int V>
__global__ void __launch_bounds__(kColumnThreads)
    alive_sums_kernel(ImagePieces pieces, std::int64_t C, std::int64_t groups, const T* x, const float* kept,
                      float* sums) {
  __shared__ float shared[2 * V * kColumnThreads];
  for (std::int64_t tile = blockIdx.x; tile < pieces.count() * groups; tile += gridDim.x) {
    const Division group = divide(tile, groups), piece = divide(group.quotient, pieces.of_image());
    const std::int64_t c = thread_channel<V>(group.remainder), image = piece.quotient * pieces.pixels;
    const std::int64_t begin = piece.remainder * kPiece, end = min(begin + kPiece, pieces.pixels);
    float coefficients[3][V] = {}, mine[2 * V];
    if (c < C) load_planes(kept, C, c, coefficients);
    chunk_sums<V>(begin, end, c < C, shared, mine, [&](std::int64_t i, float (&alive)[V], float (&distance)[V]) {
      load_channels(x + (image + i) * C + c, distance);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        distance[v] -= coefficients[0][v];
        const bool dead = distance[v] * coefficients[1][v] + coefficients[2][v] <= 0.0f;
        alive[v] = dead ? 0.0f : 1.0f;
        distance[v] = dead ? 0.0f : distance[v];
      }
    });
    store_sums<V>(mine, group.quotient, C, c, sums);
    __syncthreads();  // the next tile writes `shared`
  }
}

// An item is an image and a channel.
template <class T>
__global__ void __launch_bounds__(kItemThreads)
    alive_mean_kernel(ImagePieces pieces, std::int64_t C, const float* sums, const float* kept, T* y, float* alive) {
  const std::int64_t items = pieces.N * C;
  for_items(items, [&](std::int64_t item) {
    const Division at = divide(item, C);
    float count = 0.0f, distance = 0.0f;
    for (std::int64_t i = at.quotient * pieces.of_image(); i < (at.quotient + 1) * pieces.of_image(); ++i) {
      count += sums[2 * i * C + at.remainder];
      distance += sums[(2 * i + 1) * C + at.remainder];
    }
    const float share = count / static_cast<float>(pieces.pixels), mean = count > 0.0f ? distance / count : 0.0f;
    const float z = mean * kept[C + at.remainder] + kept[2 * C + at.remainder];
    y[item] = from_float<T>(count > 0.0f ? share * z : 0.0f);
    alive[item] = share;
    alive[items + item] = mean;
  });
}

// The rows of the chunks are images.
template <class T, int V>
__global__ void __launch_bounds__(kColumnThreads)
    image_sums_kernel(const T* dy, const float* alive, RowChunks chunks, float* sums) {
  __shared__ float shared[2 * V * kColumnThreads];
  const std::int64_t c = thread_channel<V>(blockIdx.x), chunk = blockIdx.y, C = chunks.channels;
  float mine[2 * V];
  chunk_sums<V>(chunks.begin(chunk), chunks.end(chunk), c < C, shared, mine,
                [&](std::int64_t n, float (&g)[V], float (&distance)[V]) {
                  float share[V];
                  load_channels(dy + n * C + c, g);
                  load_values(alive + n * C + c, share);
                  load_values(alive + (chunks.rows + n) * C + c, distance);
#pragma unroll
                  for (int v = 0; v < V; ++v) g[v] = share[v] == 0.0f ? 0.0f : g[v] * share[v];  // 0, be dy NaN or not
                });
  store_sums<V>(mine, chunk, C, c, sums);
}

// planes: (3, C), what batch_norm2d_gradients made of the sums.
template <class T, int V>
__global__ void __launch_bounds__(kItemThreads)
    alive_dx_kernel(BatchNorm2dBwdArgs a, std::int64_t pixels, const float* kept, const float* planes) {
  for_items(a.rows * (a.channels / V), [&](std::int64_t item) {
    const Division pixel = divide(item, a.channels / V);
    const std::int64_t c = pixel.remainder * V, n = divide(pixel.quotient, pixels).quotient;
    float x[V], dy[V], dx[V], norm[3][V], gradient[3][V];
    load_channels(static_cast<const T*>(a.x) + item * V, x);
    load_channels(static_cast<const T*>(a.dy) + n * a.channels + c, dy);
    load_planes(kept, a.channels, c, norm);
    load_planes(planes, a.channels, c, gradient);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const float distance = x[v] - norm[0][v];
      const bool dead = distance * norm[1][v] + norm[2][v] <= 0.0f;
      dx[v] = gradient[0][v] * (dead ? 0.0f : dy[v] / static_cast<float>(pixels));
      if (a.training) dx[v] += gradient[1][v] * distance + gradient[2][v];
    }
    store_channels(static_cast<T*>(a.dx) + item * V, dx);
  });
}

}  // namespace

void batch_norm2d_relu_global_avg_pool2d_fwd(const BatchNorm2dReluGlobalAvgPool2dFwdArgs& args, Stream stream) {
  const BatchNorm2dFwdArgs& a = args.norm;
  const std::int64_t C = a.channels;
  auto* kept = static_cast<float*>(args.kept);
  batch_norm2d_statistics(a, kept, stream);
  const ImagePieces pieces{args.N, args.pixels};
  const Workspace sums(static_cast<std::size_t>(2 * pieces.count() * C) * sizeof(float), stream);
  with_channels(a.dtype, C, {a.x, args.kept}, [&]<class T, int V>(T, std::integral_constant<int, V>) {
    const dim3 block = column_block<V>(column_height<T>(args.pixels < kPiece ? args.pixels : kPiece, C), C);
    const std::int64_t groups = column_groups<V>(block, C);
    const unsigned blocks = blocks_of_items(pieces.count() * groups * kItemThreads);
    launch(alive_sums_kernel<T, V>, blocks, block, 0, stream, pieces, C, groups, static_cast<const T*>(a.x),
           static_cast<const float*>(kept), sums.as<float>());
    launch(alive_mean_kernel<T>, blocks_of_items(args.N * C), kItemThreads, 0, stream, pieces, C,
           sums.as<const float>(), static_cast<const float*>(kept), static_cast<T*>(a.y),
           static_cast<float*>(args.alive));
  });
}

void batch_norm2d_relu_global_avg_pool2d_bwd(const BatchNorm2dReluGlobalAvgPool2dBwdArgs& args, Stream stream) {
  const BatchNorm2dBwdArgs& a = args.norm;
  const auto arrays = {a.dy, a.x, args.kept, args.alive, static_cast<const void*>(a.dx)};
  with_channels(a.dtype, a.channels, arrays, [&]<class T, int V>(T t, std::integral_constant<int, V>) {
    const RowChunks chunks = RowChunks::of(t, args.N, a.channels);
    const Workspace sums = sums_of(chunks, stream), planes = planes_of(a.channels, stream);
    launch(image_sums_kernel<T, V>, chunks.grid<V>(), chunks.block<V>(), 0, stream, static_cast<const T*>(a.dy),
           static_cast<const float*>(args.alive), chunks, sums.as<float>());
    batch_norm2d_gradients(a, chunks.count, sums.as<const float>(), planes.as<float>(), stream);
    launch(alive_dx_kernel<T, V>, blocks_of_items(a.rows * (a.channels / V)), kItemThreads, 0, stream, a, args.pixels,
           static_cast<const float*>(args.kept), planes.as<const float>());
  });
}

}  // namespace stapes::cuda
