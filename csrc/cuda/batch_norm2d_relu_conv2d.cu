// batch_norm2d_relu_conv2d: batch_norm2d, ReLU and a convolution of the result
//   fwd: z = (x - mean) * scale + shift as batch_norm2d_fwd's y, y = conv2d(max(0, z), w, b)
//        kept = (mean, scale, shift, rstd), from which the backward makes z again
//   bwd: g = dgrad of dy where z > 0, else 0 (NaN passes); dx, dgamma and dbeta are batch_norm2d_bwd's of g;
//        dw is the wgrad of dy and max(0, z), db the sum of dy
// batch_norm2d_relu_conv2d_chain: several of these, one by one, with the gradients between them in scratch memory
// Layout as conv2d. Channels by 16 bytes where C and the addresses allow; else one at a time.
// Work: max(0, z) lies in scratch memory, written before the convolution and again before its wgrad, a thread an item,
//   V channels of a pixel; the convolutions are conv2d's. Backward, dx holds the dgrad, which the sums (in chunks, as
//   in batch_norm2d_bwd) and the last kernel mask by the sign of z, as they make it from x. Registers: three
//   coefficients and two sums of V channels. Shared memory: up to 16 KB.
// Launch bounds: 256 threads.
// Numerics: z in float32, rounded only where it is the convolution's input, so its sign is that before rounding. The
//   dgrad is rounded to the dtype before it is summed. The same bits on every run. Overwrites.
// Source: the definition; for the statistics and gradients see batch_norm2d_fwd.cu and batch_norm2d_bwd.cu.
// Measured: not measured.
#include <optional>

#include "cuda/batch_norm2d.cuh"
#include "cuda/items.cuh"

namespace stapes::cuda {
namespace {

// z of V channels; coefficients are mean, scale and shift.
template <int V>
__device__ __forceinline__ float normalised(const float (&x)[V], const float (&coefficients)[3][V], int v) {
  return (x[v] - coefficients[0][v]) * coefficients[1][v] + coefficients[2][v];
}

template <class T, int V>
__global__ void __launch_bounds__(kItemThreads)
    norm_relu_kernel(const T* x, const float* kept, T* y, std::int64_t pixels, std::int64_t C) {
  for_items(pixels * (C / V), [&](std::int64_t item) {
    float value[V], coefficients[3][V];
    load_channels(x + item * V, value);
    load_planes(kept, C, divide(item, C / V).remainder * V, coefficients);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const float z = normalised(value, coefficients, v);
      value[v] = z <= 0.0f ? 0.0f : z;
    }
    store_channels(y + item * V, value);
  });
}

template <class T, int V>
__global__ void __launch_bounds__(kColumnThreads)
    masked_sums_kernel(BatchNorm2dBwdArgs a, const float* kept, RowChunks chunks, float* sums) {
  __shared__ float shared[2 * V * kColumnThreads];
  const std::int64_t c = thread_channel<V>(blockIdx.x), chunk = blockIdx.y, C = chunks.channels;
  float coefficients[3][V] = {}, mine[2 * V];
  if (c < C) load_planes(kept, C, c, coefficients);
  chunk_sums<V>(chunks.begin(chunk), chunks.end(chunk), c < C, shared, mine,
                [&](std::int64_t r, float (&g)[V], float (&distance)[V]) {
                  load_channels(static_cast<const T*>(a.dx) + r * C + c, g);
                  load_channels(static_cast<const T*>(a.x) + r * C + c, distance);
#pragma unroll
                  for (int v = 0; v < V; ++v) {
                    if (normalised(distance, coefficients, v) <= 0.0f) g[v] = 0.0f;
                    distance[v] -= coefficients[0][v];
                  }
                });
  store_sums<V>(mine, chunk, C, c, sums);
}

// planes: (3, C), what batch_norm2d_gradients made of the sums. dx holds the dgrad.
template <class T, int V>
__global__ void __launch_bounds__(kItemThreads)
    masked_dx_kernel(BatchNorm2dBwdArgs a, const float* kept, const float* planes) {
  for_items(a.rows * (a.channels / V), [&](std::int64_t item) {
    const std::int64_t c = divide(item, a.channels / V).remainder * V;
    float x[V], dx[V], norm[3][V], gradient[3][V];
    load_channels(static_cast<const T*>(a.x) + item * V, x);
    load_channels(static_cast<const T*>(a.dx) + item * V, dx);
    load_planes(kept, a.channels, c, norm);
    load_planes(planes, a.channels, c, gradient);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      dx[v] = gradient[0][v] * (normalised(x, norm, v) <= 0.0f ? 0.0f : dx[v]);
      if (a.training) dx[v] += gradient[1][v] * (x[v] - norm[0][v]) + gradient[2][v];
    }
    store_channels(static_cast<T*>(a.dx) + item * V, dx);
  });
}

std::size_t map_bytes(const BatchNorm2dReluConv2dBwdArgs& a) {
  return static_cast<std::size_t>(a.norm.rows * a.norm.channels) * size_of(a.norm.dtype);
}

void norm_relu(const void* x, const void* kept, void* y, std::int64_t pixels, std::int64_t C, DType dtype,
               Stream stream) {
  with_channels(dtype, C, {x, kept, y}, [&]<class T, int V>(T, std::integral_constant<int, V>) {
    launch(norm_relu_kernel<T, V>, blocks_of_items(pixels * (C / V)), kItemThreads, 0, stream, static_cast<const T*>(x),
           static_cast<const float*>(kept), static_cast<T*>(y), pixels, C);
  });
}

}  // namespace

void batch_norm2d_relu_conv2d_fwd(const BatchNorm2dReluConv2dFwdArgs& args, Stream stream) {
  const BatchNorm2dFwdArgs& a = args.norm;
  batch_norm2d_statistics(a, static_cast<float*>(args.kept), stream);
  const Workspace y(static_cast<std::size_t>(a.rows * a.channels) * size_of(a.dtype), stream);
  norm_relu(a.x, args.kept, y.data(), a.rows, a.channels, a.dtype, stream);
  Conv2dFwdArgs conv = args.conv;
  conv.x = y.data();
  conv2d_fwd(conv, stream);
}

void batch_norm2d_relu_conv2d_bwd(const BatchNorm2dReluConv2dBwdArgs& args, Stream stream) {
  const BatchNorm2dBwdArgs& a = args.norm;
  const Conv2dDgradArgs& conv = args.conv;
  {
    const Workspace y(map_bytes(args), stream);
    norm_relu(a.x, args.kept, y.data(), a.rows, a.channels, a.dtype, stream);
    conv2d_wgrad({conv.dy, y.data(), args.dw, conv.shape, conv.dtype, conv.precision}, stream);
  }
  conv2d_dgrad(conv, stream);
  const auto arrays = {a.x, args.kept, static_cast<const void*>(a.dx)};
  const auto* kept = static_cast<const float*>(args.kept);
  with_channels(a.dtype, a.channels, arrays, [&]<class T, int V>(T t, std::integral_constant<int, V>) {
    const RowChunks chunks = RowChunks::of(t, a.rows, a.channels);
    const Workspace sums = sums_of(chunks, stream), planes = planes_of(a.channels, stream);
    launch(masked_sums_kernel<T, V>, chunks.grid<V>(), chunks.block<V>(), 0, stream, a, kept, chunks, sums.as<float>());
    batch_norm2d_gradients(a, chunks.count, sums.as<const float>(), planes.as<float>(), stream);
    launch(masked_dx_kernel<T, V>, blocks_of_items(a.rows * (a.channels / V)), kItemThreads, 0, stream, a, kept,
           planes.as<const float>());
  });
  const Conv2dShape& s = conv.shape;
  if (args.db != nullptr) conv2d_bgrad({conv.dy, args.db, s.N * s.window.P * s.window.Q, s.K, conv.dtype}, stream);
}

void batch_norm2d_relu_conv2d_chain_fwd(const NormConvChainFwdArgs& args, Stream stream) {
  for (const BatchNorm2dReluConv2dFwdArgs& block : args.blocks) batch_norm2d_relu_conv2d_fwd(block, stream);
}

void batch_norm2d_relu_conv2d_chain_bwd(const NormConvChainBwdArgs& args, Stream stream) {
  std::optional<Workspace> memory[2];  // a block reads one gradient and writes another
  const void* dy = args.blocks.back().conv.dy;
  for (std::size_t i = args.blocks.size(); i-- > 0;) {
    BatchNorm2dReluConv2dBwdArgs block = args.blocks[i];
    block.conv.dy = dy;
    if (i > 0) {
      memory[i % 2].emplace(map_bytes(block), stream);
      block.norm.dx = block.conv.dx = memory[i % 2]->data();
    }
    batch_norm2d_relu_conv2d_bwd(block, stream);
    dy = block.norm.dx;
  }
}

}  // namespace stapes::cuda
