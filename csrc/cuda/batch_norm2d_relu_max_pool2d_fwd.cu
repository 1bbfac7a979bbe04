// batch_norm2d_relu_max_pool2d_fwd
//   z = (x - mean) * rstd * gamma + beta as batch_norm2d_fwd has it, statistics included
//   y[n,p,q,c] = max(0, max over the window of z), argmax = r * pool_w + s of the first maximum in scan order; the
//   first NaN wins; 255, dead, where the maximum is <= 0
// Layout NHWC; y and argmax (N, H / pool_h, W / pool_w, C). Channels by 16 bytes of x, and their argmax by one access,
//   where C and all addresses allow; else one at a time.
// Work: the statistics of batch_norm2d_fwd, in stages; then a thread an item, V channels of a pixel of y, neighbours
//   along the channels, then the row. So x is read twice, and z is never written. Registers: three coefficients, the
//   maximum and its place for V channels; of 2 x 2 windows all four pixels are on their way at once.
// Launch bounds: 256 threads.
// Numerics: z in float32, rounded only where it is y, so that the maximum is chosen before rounding. The same bits on
//   every run. Overwrites y, argmax, mean and rstd.
// Source: the definition; for the statistics see batch_norm2d_fwd.cu.
// Measured: not measured.
#include "cuda/batch_norm2d.cuh"
#include "cuda/pool_tiles.cuh"

namespace stapes::cuda {
namespace {

// A maximum must be larger than the 0 it begins with: that is ReLU, and what nothing exceeds is dead.
template <class T, int V, class Tiles>
__global__ void __launch_bounds__(kItemThreads)
    norm_relu_max_pool_kernel(Tiles tiles, const T* x, const float* planes, T* y, std::uint8_t* argmax) {
  for_items(tiles.count() * (tiles.C / V), [&](std::int64_t item) {
    const Place at = place_of<V>(item, tiles.P, tiles.Q, tiles.C);
    const T* corner = x + tiles.corner(at.n, at.h, at.w) + at.c;
    float coefficients[3][V], best[V] = {};
    load_planes(planes, tiles.C, at.c, coefficients);
    Places<std::uint8_t, V> found;
#pragma unroll
    for (int v = 0; v < V; ++v) found[v] = kDead;
    tiles.for_places([&](int place, std::int64_t offset) {
      float value[V];
      load_channels(corner + offset, value);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const float z = (value[v] - coefficients[0][v]) * coefficients[1][v] + coefficients[2][v];
        const bool take = !(z <= best[v]) && best[v] == best[v];  // larger, or the first NaN
        best[v] = take ? z : best[v];
        found[v] = take ? static_cast<std::uint8_t>(place) : found[v];
      }
    });
    store_channels(y + item * V, best);
    found.store(argmax + item * V);
  });
}

}  // namespace

void batch_norm2d_relu_max_pool2d_fwd(const BatchNorm2dReluMaxPool2dFwdArgs& args, Stream stream) {
  const BatchNorm2dFwdArgs& a = args.norm;
  const Workspace planes = planes_of(a.channels, stream);
  batch_norm2d_statistics(a, planes.as<float>(), stream);
  with_channels(a.dtype, a.channels, {a.x, a.y, args.argmax}, [&]<class T, int V>(T, std::integral_constant<int, V>) {
    with_tiles(args.map, [&]<class Tiles>(const Tiles& tiles) {
      launch(norm_relu_max_pool_kernel<T, V, Tiles>, blocks_of_items(tiles.count() * (tiles.C / V)), kItemThreads, 0,
             stream, tiles, static_cast<const T*>(a.x), planes.as<const float>(), static_cast<T*>(a.y), args.argmax);
    });
  });
}

}  // namespace stapes::cuda
