// batch_norm2d_relu_max_pool2d_bwd
//   g[n,h,w,c] = dy[n,p,q,c] where argmax names the place of (h, w) in the window (p, q) that covers it, else 0
//   dbeta = sum g, dgamma = rstd * sum g (x - mean)
//   in training dx = gamma * rstd * (g - dbeta / M - (x - mean) * rstd * dgamma / M), else gamma * rstd * g
// Layout NHWC; dy and argmax (N, H / pool_h, W / pool_w, C). Channels by 16 bytes where C and the addresses allow; else
//   one at a time.
// Work: the sums go over windows instead of pixels, in chunks as in batch_norm2d_bwd (RowChunks), then come its
//   coefficients. dx: a thread an item, V channels of a window or of what is left of one at the end of the image.
//   argmax is only compared with: whatever it holds, no access depends on it, and what is no place is dead.
//   Registers: two sums or three coefficients of V channels, and the pixels in flight. Shared memory: up to 16 KB.
// Launch bounds: 256 threads.
// Numerics: as batch_norm2d_bwd. The same bits on every run. Overwrites.
// Source: the definition; for the gradients see batch_norm2d_bwd.cu.
// Measured: not measured.
#include "cuda/batch_norm2d.cuh"
#include "cuda/pool_tiles.cuh"

namespace stapes::cuda {
namespace {

// Windows are the rows of the chunks. All of a window is read, by vectors: its sectors would be, too, if each channel
// read its one place.
template <class T, int V, class Tiles>
__global__ void __launch_bounds__(kColumnThreads)
    pooled_sums_kernel(BatchNorm2dBwdArgs a, const std::uint8_t* argmax, Tiles tiles, RowChunks chunks, float* sums) {
  __shared__ float shared[2 * V * kColumnThreads];
  const std::int64_t c = thread_channel<V>(blockIdx.x), chunk = blockIdx.y, C = tiles.C;
  float mean[V] = {}, mine[2 * V];
  if (c < C) load_values(static_cast<const float*>(a.mean) + c, mean);
  const auto row = [&](std::int64_t window, float (&dy)[V], float (&distance)[V]) {
    const Place at = place_of<1>(window, tiles.P, tiles.Q, 1);
    const T* corner = static_cast<const T*>(a.x) + tiles.corner(at.n, at.h, at.w) + c;
    Places<std::uint8_t, V> named;
    named.load(argmax + window * C + c);
    load_channels(static_cast<const T*>(a.dy) + window * C + c, dy);
#pragma unroll
    for (int v = 0; v < V; ++v) distance[v] = 0.0f;
    tiles.for_places([&](int place, std::int64_t offset) {
      float x[V];
      load_channels(corner + offset, x);
#pragma unroll
      for (int v = 0; v < V; ++v) distance[v] = named[v] == place ? x[v] - mean[v] : distance[v];
    });
#pragma unroll
    for (int v = 0; v < V; ++v) dy[v] = named[v] < tiles.places() ? dy[v] : 0.0f;
  };
  chunk_sums<V>(chunks.begin(chunk), chunks.end(chunk), c < C, shared, mine, row);
  store_sums<V>(mine, chunk, C, c, sums);
}

// An item is a window, or what the end of the image left of one, where dy is 0; rows x cols of them are an image. The
// compiler is told that x and dx are apart, so that reads of later pixels need not wait for writes of earlier ones.
template <class T, int V, class Tiles>
__global__ void __launch_bounds__(kItemThreads)
    pooled_dx_kernel(BatchNorm2dBwdArgs a, const T* __restrict__ x, const std::uint8_t* argmax, Tiles tiles,
                     std::int64_t rows, std::int64_t cols, const float* planes, T* __restrict__ dx) {
  for_items(tiles.N * rows * cols * (tiles.C / V), [&](std::int64_t item) {
    const Place at = place_of<V>(item, rows, cols, tiles.C);
    const std::int64_t corner = tiles.corner(at.n, at.h, at.w) + at.c;
    float coefficients[3][V], mean[V], dy[V] = {};
    load_planes(planes, tiles.C, at.c, coefficients);
    load_values(static_cast<const float*>(a.mean) + at.c, mean);
    Places<std::uint8_t, V> named = {};
    const auto pixel = [&](int place, std::int64_t offset) {
      float d[V];
#pragma unroll
      for (int v = 0; v < V; ++v) d[v] = coefficients[0][v] * (named[v] == place ? dy[v] : 0.0f);
      if (a.training) {
        float value[V];
        load_channels(x + corner + offset, value);
#pragma unroll
        for (int v = 0; v < V; ++v) d[v] += coefficients[1][v] * (value[v] - mean[v]) + coefficients[2][v];
      }
      store_channels(dx + corner + offset, d);
    };
    if (at.h < tiles.P && at.w < tiles.Q) {
      const std::int64_t window = ((at.n * tiles.P + at.h) * tiles.Q + at.w) * tiles.C + at.c;
      named.load(argmax + window);
      load_channels(static_cast<const T*>(a.dy) + window, dy);
      tiles.for_places(pixel);
    } else {
      tiles.for_left_over(at.h, at.w, [&](std::int64_t offset) { pixel(0, offset); });
    }
  });
}

}  // namespace

void batch_norm2d_relu_max_pool2d_bwd(const BatchNorm2dReluMaxPool2dBwdArgs& args, Stream stream) {
  const BatchNorm2dBwdArgs& a = args.norm;
  const auto arrays = {a.dy, static_cast<const void*>(args.argmax), a.x, a.mean, static_cast<const void*>(a.dx)};
  with_channels(a.dtype, a.channels, arrays, [&]<class T, int V>(T t, std::integral_constant<int, V>) {
    with_tiles(args.map, [&]<class Tiles>(const Tiles& tiles) {
      const RowChunks chunks = RowChunks::of(t, tiles.count(), a.channels, tiles.places());
      const Workspace sums = sums_of(chunks, stream), planes = planes_of(a.channels, stream);
      launch(pooled_sums_kernel<T, V, Tiles>, chunks.grid<V>(), chunks.block<V>(), 0, stream, a, args.argmax, tiles,
             chunks, sums.as<float>());
      batch_norm2d_gradients(a, chunks.count, sums.as<const float>(), planes.as<float>(), stream);
      const std::int64_t rows = ceil_div<std::int64_t>(tiles.H, tiles.height());
      const std::int64_t cols = ceil_div<std::int64_t>(tiles.W, tiles.width());
      launch(pooled_dx_kernel<T, V, Tiles>, blocks_of_items(tiles.N * rows * cols * (tiles.C / V)), kItemThreads, 0,
             stream, a, static_cast<const T*>(a.x), args.argmax, tiles, rows, cols, planes.as<const float>(),
             static_cast<T*>(a.dx));
    });
  });
}

}  // namespace stapes::cuda
