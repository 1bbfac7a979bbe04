// batch_norm2d_bwd
//   dbeta = sum dy, dgamma = rstd * sum dy (x - mean)
//   in training dx = gamma * rstd * (dy - dbeta / M - (x - mean) * rstd * dgamma / M), else gamma * rstd * dy
// Layout (M, C), channels innermost. Channels by 16 bytes where C and the addresses allow; else one at a time.
// Work: chunks of rows x groups of channels, a block each (RowChunks). A thread adds every blockDim.y-th row of its
//   channels; threads, then chunks are joined along trees. Then one thread a channel writes the coefficients, and
//   the blocks of the first kernel go over their rows again. With few rows a block does all of that in one kernel.
//   Registers: two sums of V channels, and the rows in flight. Shared memory: up to 16 KB, the tree's.
// Launch bounds: 256 threads; 2 blocks of the kernel that does all.
// Numerics: sums in float32, of few terms each, in an order fixed by the shape; the last steps of each channel in
//   double. The same bits on every run. Overwrites.
// Source: S. Ioffe, C. Szegedy, "Batch Normalization", 2015.
// Measured: not measured.
#include "cuda/batch_norm2d.cuh"

namespace stapes::cuda {
namespace {

// The sums of rows [begin, end).
template <class T, int V>
__device__ __forceinline__ void plain_sums(const BatchNorm2dBwdArgs& a, std::int64_t begin, std::int64_t end,
                                           std::int64_t c, float* shared, float (&sums)[2 * V]) {
  float mean[V] = {};
  if (c < a.channels) load_values(static_cast<const float*>(a.mean) + c, mean);
  chunk_sums<V>(begin, end, c < a.channels, shared, sums, [&](std::int64_t r, float (&dy)[V], float (&distance)[V]) {
    load_channels(static_cast<const T*>(a.dy) + r * a.channels + c, dy);
    load_channels(static_cast<const T*>(a.x) + r * a.channels + c, distance);
#pragma unroll
    for (int v = 0; v < V; ++v) distance[v] -= mean[v];
  });
}

// Writes the gradients of one channel; dx = scale * dy + (slope * (x - mean) + shift) with the result.
struct Coefficients {
  float scale, slope, shift;
};
__device__ __forceinline__ Coefficients finish_channel(const BatchNorm2dBwdArgs& a, std::int64_t c, float sum_dy,
                                                       float sum_dyx) {
  const double rstd = static_cast<double>(static_cast<const float*>(a.rstd)[c]);
  const double scale = static_cast<double>(static_cast<const float*>(a.gamma)[c]) * rstd;
  const auto rows = static_cast<double>(a.rows);
  static_cast<float*>(a.dbeta)[c] = sum_dy;
  static_cast<float*>(a.dgamma)[c] = static_cast<float>(static_cast<double>(sum_dyx) * rstd);
  return {static_cast<float>(scale), static_cast<float>(-scale * rstd * rstd * static_cast<double>(sum_dyx) / rows),
          static_cast<float>(-scale * static_cast<double>(sum_dy) / rows)};
}

template <class T, int V>
__device__ __forceinline__ void input_gradient(const BatchNorm2dBwdArgs& a, std::int64_t begin, std::int64_t end,
                                               std::int64_t c, const float (&coefficients)[3][V]) {
  float mean[V];
  load_values(static_cast<const float*>(a.mean) + c, mean);
#pragma unroll 2
  for (std::int64_t r = begin + threadIdx.y; r < end; r += blockDim.y) {
    const std::int64_t at = r * a.channels + c;
    float dx[V];
    load_channels(static_cast<const T*>(a.dy) + at, dx);
#pragma unroll
    for (int v = 0; v < V; ++v) dx[v] *= coefficients[0][v];
    if (a.training) {
      float x[V];
      load_channels(static_cast<const T*>(a.x) + at, x);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        dx[v] += coefficients[1][v] * (x[v] - mean[v]) + coefficients[2][v];
      }
    }
    store_channels(static_cast<T*>(a.dx) + at, dx);
  }
}

// All in one, where one chunk holds all rows.
template <class T, int V>
__global__ void __launch_bounds__(kColumnThreads, 2) batch_norm2d_bwd_kernel(BatchNorm2dBwdArgs a) {
  __shared__ float shared[2 * V * kColumnThreads];
  const std::int64_t c = thread_channel<V>(blockIdx.x);
  float sums[2 * V], coefficients[3][V] = {};
  plain_sums<T, V>(a, 0, a.rows, c, shared, sums);
  __syncthreads();  // `shared` is used again
  if (threadIdx.y == 0 && c < a.channels) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const Coefficients done = finish_channel(a, c + v, sums[v], sums[V + v]);
      coefficients[0][v] = done.scale;
      coefficients[1][v] = done.slope;
      coefficients[2][v] = done.shift;
    }
  }
  spread_to_rows(coefficients, shared);
  if (c < a.channels) input_gradient<T, V>(a, 0, a.rows, c, coefficients);
}

template <class T, int V>
__global__ void __launch_bounds__(kColumnThreads)
    batch_norm2d_sums_kernel(BatchNorm2dBwdArgs a, RowChunks chunks, float* partials) {
  __shared__ float shared[2 * V * kColumnThreads];
  const std::int64_t c = thread_channel<V>(blockIdx.x), chunk = blockIdx.y;
  float sums[2 * V];
  plain_sums<T, V>(a, chunks.begin(chunk), chunks.end(chunk), c, shared, sums);
  store_sums<V>(sums, chunk, a.channels, c, partials);
}

// coefficients: (3, C).
__global__ void __launch_bounds__(kColumnThreads)
    batch_norm2d_gradients_kernel(BatchNorm2dBwdArgs a, std::int64_t chunks, const float* partials,
                                  float* coefficients) {
  __shared__ float shared[2 * kColumnThreads];
  const std::int64_t c = thread_channel<1>(blockIdx.x), C = a.channels;
  float sums[2] = {};
#pragma unroll 4
  for (std::int64_t i = threadIdx.y; i < chunks; i += blockDim.y) {
    if (c < C) AddAll{}(sums, {partials[2 * i * C + c], partials[(2 * i + 1) * C + c]});
  }
  reduce_rows(sums, shared, AddAll{});
  if (threadIdx.y == 0 && c < C) {
    const Coefficients done = finish_channel(a, c, sums[0], sums[1]);
    coefficients[c] = done.scale;
    coefficients[C + c] = done.slope;
    coefficients[2 * C + c] = done.shift;
  }
}

template <class T, int V>
__global__ void __launch_bounds__(kColumnThreads)
    batch_norm2d_dx_kernel(BatchNorm2dBwdArgs a, RowChunks chunks, const float* planes) {
  const std::int64_t c = thread_channel<V>(blockIdx.x), chunk = blockIdx.y;
  if (c >= a.channels) return;
  float coefficients[3][V];
  load_planes(planes, a.channels, c, coefficients);
  input_gradient<T, V>(a, chunks.begin(chunk), chunks.end(chunk), c, coefficients);
}

}  // namespace

void batch_norm2d_gradients(const BatchNorm2dBwdArgs& a, std::int64_t chunks, const float* partials, float* planes,
                            Stream stream) {
  launch(batch_norm2d_gradients_kernel, merge_blocks(a.channels), merge_block(), 0, stream, a, chunks, partials,
         planes);
}

void batch_norm2d_bwd(const BatchNorm2dBwdArgs& a, Stream stream) {
  const auto arrays = {a.dy, a.x, a.mean, static_cast<const void*>(a.dx)};
  with_channels(a.dtype, a.channels, arrays, [&]<class T, int V>(T t, std::integral_constant<int, V>) {
    const RowChunks chunks = RowChunks::of(t, a.rows, a.channels);
    const dim3 block = chunks.block<V>(), grid = chunks.grid<V>();
    if (chunks.fused()) return launch(batch_norm2d_bwd_kernel<T, V>, chunks.groups<V>(), block, 0, stream, a);
    const Workspace partials = sums_of(chunks, stream), planes = planes_of(a.channels, stream);
    launch(batch_norm2d_sums_kernel<T, V>, grid, block, 0, stream, a, chunks, partials.as<float>());
    batch_norm2d_gradients(a, chunks.count, partials.as<const float>(), planes.as<float>(), stream);
    launch(batch_norm2d_dx_kernel<T, V>, grid, block, 0, stream, a, chunks, planes.as<const float>());
  });
}

}  // namespace stapes::cuda
