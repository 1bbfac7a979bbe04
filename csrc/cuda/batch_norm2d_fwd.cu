// batch_norm2d_fwd
//   y = (x - mean) * rstd * gamma + beta, rstd = 1 / sqrt(var + eps)
//   in training var is the biased variance of the batch, and running = (1 - momentum) * running + momentum * batch with
//   the unbiased variance M / (M - 1) * var; else the running values are used
// Layout (M, C), channels innermost. Channels by 16 bytes where C and the addresses allow; else one at a time.
// Work: chunks of rows x groups of channels, a block each (RowChunks). A thread takes every blockDim.y-th row of its
//   channels, four rows at a time, as count, mean and squared distance from it; threads, then chunks are joined
//   along trees by Chan's formula. Then one thread a channel writes the coefficients, and the blocks of the first
//   kernel go over their rows again. With few rows a block does all of that in one kernel. Registers: four rows and
//   two moments of V channels. Shared memory: up to 17 KB, the tree's.
// Launch bounds: 256 threads.
// Numerics: moments in float32, of x less its first value in the channel, so that a large mean takes no digits from
//   the variance; the last steps of each channel in double. y uses the mean as a rounded value plus what rounding
//   left. The same bits on every run. Overwrites y, mean and rstd.
// Source: S. Ioffe, C. Szegedy, "Batch Normalization", 2015; T. Chan, G. Golub, R. LeVeque, "Updating Formulae and a
//   Pairwise Algorithm for Computing Sample Variances", 1979.
// Measured: not measured.
#include "cuda/batch_norm2d.cuh"

namespace stapes::cuda {
namespace {

constexpr int kRowsAtOnce = 4;

// (count, V means, V summed squares of the distance from them); means are of x less its first value in the channel.
template <int V>
inline constexpr int kMoments = 1 + 2 * V;

struct MergeMoments {
  template <int M>
  __device__ void operator()(float (&mine)[M], const float (&other)[M]) const {
    constexpr int V = (M - 1) / 2;
    const float n = mine[0] + other[0];
    const float share = n > 0.0f ? other[0] / n : 0.0f, weight = mine[0] * share;
    mine[0] = n;
#pragma unroll
    for (int v = 1; v <= V; ++v) {
      const float d = other[v] - mine[v];
      mine[v] += d * share;
      mine[V + v] += other[V + v] + d * d * weight;
    }
  }
};

// The moments of rows [begin, end) of the thread's channels; all of them in the end with the block's thread row 0.
template <class T, int V>
__device__ __forceinline__ void chunk_moments(const T* x, const RowChunks& chunks, std::int64_t begin, std::int64_t end,
                                              std::int64_t c, float* shared, float (&moments)[kMoments<V>]) {
  const std::int64_t C = chunks.channels, height = blockDim.y;
#pragma unroll
  for (int i = 0; i < kMoments<V>; ++i) moments[i] = 0.0f;
  if (c < C) {
    float origin[V];
    load_channels(x + c, origin);
    for (std::int64_t r = begin + threadIdx.y; r < end; r += kRowsAtOnce * height) {
      float d[kRowsAtOnce][V], four[kMoments<V>] = {};
#pragma unroll
      for (int k = 0; k < kRowsAtOnce; ++k) {
        if (r + k * height < end) {
          load_channels(x + (r + k * height) * C + c, d[k]);
          four[0] += 1.0f;
        }
      }
#pragma unroll
      for (int k = 0; k < kRowsAtOnce; ++k) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
          if (r + k * height < end) four[1 + v] += d[k][v] -= origin[v];
        }
      }
#pragma unroll
      for (int v = 0; v < V; ++v) {
        four[1 + v] /= four[0];
#pragma unroll
        for (int k = 0; k < kRowsAtOnce; ++k) {
          const float distance = r + k * height < end ? d[k][v] - four[1 + v] : 0.0f;
          four[1 + V + v] += distance * distance;
        }
      }
      MergeMoments{}(moments, four);
    }
  }
  reduce_rows(moments, shared, MergeMoments{});
}

// Writes what is kept of one channel; y = (x - center) * scale + shift with the result.
struct Coefficients {
  float center, scale, shift;
};
__device__ __forceinline__ Coefficients finish_channel(const BatchNorm2dFwdArgs& a, std::int64_t c, float origin,
                                                       float mean, float squares) {
  float &running_mean = static_cast<float*>(a.running_mean)[c], &running_var = static_cast<float*>(a.running_var)[c];
  double exact_mean, var;
  if (a.training) {
    const auto rows = static_cast<double>(a.rows);
    exact_mean = static_cast<double>(origin) + static_cast<double>(mean);
    var = static_cast<double>(squares) / rows;
    const double unbiased = var * (rows / (rows - 1)), old = 1 - a.momentum;
    running_mean = static_cast<float>(old * static_cast<double>(running_mean) + a.momentum * exact_mean);
    running_var = static_cast<float>(old * static_cast<double>(running_var) + a.momentum * unbiased);
  } else {
    exact_mean = static_cast<double>(running_mean);
    var = static_cast<double>(running_var);
  }
  const double rstd = 1 / sqrt(var + a.eps), scale = rstd * static_cast<double>(static_cast<const float*>(a.gamma)[c]);
  const auto center = static_cast<float>(exact_mean);
  const double left = exact_mean - static_cast<double>(center);
  static_cast<float*>(a.mean)[c] = center;
  static_cast<float*>(a.rstd)[c] = static_cast<float>(rstd);
  const double beta = static_cast<double>(static_cast<const float*>(a.beta)[c]);
  return {center, static_cast<float>(scale), static_cast<float>(beta - left * scale)};
}

template <class T, int V>
__device__ __forceinline__ void normalise(const BatchNorm2dFwdArgs& a, std::int64_t begin, std::int64_t end,
                                          std::int64_t c, const float (&coefficients)[3][V]) {
  for (std::int64_t r = begin + threadIdx.y; r < end; r += blockDim.y) {
    float x[V];
    load_channels(static_cast<const T*>(a.x) + r * a.channels + c, x);
#pragma unroll
    for (int v = 0; v < V; ++v) x[v] = (x[v] - coefficients[0][v]) * coefficients[1][v] + coefficients[2][v];
    store_channels(static_cast<T*>(a.y) + r * a.channels + c, x);
  }
}

// All in one, where one chunk holds all rows.
template <class T, int V>
__global__ void __launch_bounds__(kColumnThreads) batch_norm2d_fwd_kernel(BatchNorm2dFwdArgs a, RowChunks chunks) {
  __shared__ float shared[kMoments<V> * kColumnThreads];
  const T* x = static_cast<const T*>(a.x);
  const std::int64_t c = thread_channel<V>(blockIdx.x);
  float moments[kMoments<V>] = {}, coefficients[3][V] = {};
  if (a.training) {
    chunk_moments<T, V>(x, chunks, 0, a.rows, c, shared, moments);
    __syncthreads();  // `shared` is used again
  }
  if (threadIdx.y == 0 && c < a.channels) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const float origin = a.training ? to_float(x[c + v]) : 0.0f;
      const Coefficients done = finish_channel(a, c + v, origin, moments[1 + v], moments[1 + V + v]);
      coefficients[0][v] = done.center;
      coefficients[1][v] = done.scale;
      coefficients[2][v] = done.shift;
    }
  }
  spread_to_rows(coefficients, shared);
  if (c < a.channels) normalise<T, V>(a, 0, a.rows, c, coefficients);
}

// partials: (chunks, 2, C), mean and squares of each chunk.
template <class T, int V>
__global__ void __launch_bounds__(kColumnThreads)
    batch_norm2d_moments_kernel(const T* x, RowChunks chunks, float* partials) {
  __shared__ float shared[kMoments<V> * kColumnThreads];
  const std::int64_t c = thread_channel<V>(blockIdx.x), chunk = blockIdx.y, C = chunks.channels;
  float moments[kMoments<V>];
  chunk_moments<T, V>(x, chunks, chunks.begin(chunk), chunks.end(chunk), c, shared, moments);
  if (threadIdx.y == 0 && c < C) {
    float mean[V], squares[V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      mean[v] = moments[1 + v];
      squares[v] = moments[1 + V + v];
    }
    store_values(partials + 2 * chunk * C + c, mean);
    store_values(partials + (2 * chunk + 1) * C + c, squares);
  }
}

// coefficients: (3, C); in evaluation there are no partials.
template <class T>
__global__ void __launch_bounds__(kColumnThreads)
    batch_norm2d_statistics_kernel(BatchNorm2dFwdArgs a, RowChunks chunks, const float* partials, float* coefficients) {
  __shared__ float shared[kMoments<1> * kColumnThreads];
  const std::int64_t c = thread_channel<1>(blockIdx.x), C = a.channels;
  float moments[kMoments<1>] = {};
  if (a.training) {
    for (std::int64_t i = threadIdx.y; i < chunks.count && c < C; i += blockDim.y) {
      const float* chunk = partials + 2 * i * C + c;
      MergeMoments{}(moments, {static_cast<float>(chunks.end(i) - chunks.begin(i)), chunk[0], chunk[C]});
    }
    reduce_rows(moments, shared, MergeMoments{});
  }
  if (threadIdx.y == 0 && c < C) {
    const float origin = a.training ? to_float(static_cast<const T*>(a.x)[c]) : 0.0f;
    const Coefficients done = finish_channel(a, c, origin, moments[1], moments[2]);
    coefficients[c] = done.center;
    coefficients[C + c] = done.scale;
    coefficients[2 * C + c] = done.shift;
  }
}

template <class T, int V>
__global__ void __launch_bounds__(kColumnThreads)
    batch_norm2d_normalise_kernel(BatchNorm2dFwdArgs a, RowChunks chunks, const float* planes) {
  const std::int64_t c = thread_channel<V>(blockIdx.x), chunk = blockIdx.y;
  if (c >= a.channels) return;
  float coefficients[3][V];
  load_planes(planes, a.channels, c, coefficients);
  normalise<T, V>(a, chunks.begin(chunk), chunks.end(chunk), c, coefficients);
}

}  // namespace

void batch_norm2d_statistics(const BatchNorm2dFwdArgs& a, float* planes, Stream stream) {
  with_channels(a.dtype, a.channels, {a.x}, [&]<class T, int V>(T t, std::integral_constant<int, V>) {
    const RowChunks chunks = RowChunks::of(t, a.rows, a.channels);
    const std::int64_t size = a.training ? 2 * chunks.count * a.channels : 0;
    const Workspace partials(static_cast<std::size_t>(size) * sizeof(float), stream);
    if (a.training) {
      launch(batch_norm2d_moments_kernel<T, V>, chunks.grid<V>(), chunks.block<V>(), 0, stream,
             static_cast<const T*>(a.x), chunks, partials.as<float>());
    }
    launch(batch_norm2d_statistics_kernel<T>, merge_blocks(a.channels), merge_block(), 0, stream, a, chunks,
           partials.as<const float>(), planes);
  });
}

void batch_norm2d_fwd(const BatchNorm2dFwdArgs& a, Stream stream) {
  with_channels(a.dtype, a.channels, {a.x, a.y}, [&]<class T, int V>(T t, std::integral_constant<int, V>) {
    const RowChunks chunks = RowChunks::of(t, a.rows, a.channels);
    const dim3 block = chunks.block<V>();
    if (chunks.fused()) return launch(batch_norm2d_fwd_kernel<T, V>, chunks.groups<V>(), block, 0, stream, a, chunks);
    const Workspace planes = planes_of(a.channels, stream);
    batch_norm2d_statistics(a, planes.as<float>(), stream);
    launch(batch_norm2d_normalise_kernel<T, V>, chunks.grid<V>(), block, 0, stream, a, chunks,
           planes.as<const float>());
  });
}

}  // namespace stapes::cuda
