// What forward and backward of batch normalisation share, alone and with ReLU and pooling behind it: how rows are cut
// into chunks, sums over them, and results per channel.
#pragma once

#include <algorithm>

#include "cuda/columns.cuh"
#include "ops/kernels.hpp"

namespace stapes::cuda {

// (rows, C) in chunks of rows x groups of channels, a block each; from shape and dtype alone. Up to kFusedRows one
// chunk holds all rows, and one kernel does everything.
struct RowChunks {
  static constexpr std::int64_t kFusedRows = 1024, kLeastRows = 256, kBlocks = 512;

  std::int64_t rows, channels, chunk_rows, count;
  int height;  // rows of a block

  // `reads`: how many values of a channel are read for a row; more make chunks of fewer rows.
  template <class T>
  static RowChunks of(T, std::int64_t rows, std::int64_t channels, std::int64_t reads = 1) {
    const int height = column_height<T>(rows, channels);
    const std::int64_t across = kColumnThreads / height * (channels % kVec<T> == 0 ? kVec<T> : 1);
    const std::int64_t groups = ceil_div(channels, across), most = groups < kBlocks ? kBlocks / groups : 1;
    const std::int64_t least = std::max<std::int64_t>(kLeastRows / reads, height);
    const std::int64_t even = std::max(ceil_div(rows, most), least);
    const std::int64_t chunk_rows = rows * reads <= kFusedRows ? kFusedRows : even;
    return {rows, channels, chunk_rows, ceil_div(rows, chunk_rows), height};
  }

  bool fused() const { return rows <= kFusedRows; }
  template <int V>
  dim3 block() const {
    return column_block<V>(height, channels);
  }
  template <int V>
  unsigned groups() const {
    return static_cast<unsigned>(column_groups<V>(block<V>(), channels));
  }
  template <int V>
  dim3 grid() const {
    return dim3(groups<V>(), static_cast<unsigned>(count));
  }

  __device__ std::int64_t begin(std::int64_t chunk) const { return chunk * chunk_rows; }
  __device__ std::int64_t end(std::int64_t chunk) const { return min((chunk + 1) * chunk_rows, rows); }
};

// Blocks of the kernels that turn chunks' results into coefficients: 8 channels, 32 chunks at a time.
inline dim3 merge_block() { return dim3(8, 32); }
inline unsigned merge_blocks(std::int64_t channels) {
  return static_cast<unsigned>(ceil_div<std::int64_t>(channels, 8));
}

// Scratch memory: two sums of each chunk, (chunks, 2, C); three coefficients, (3, C).
inline Workspace sums_of(const RowChunks& chunks, Stream stream) {
  return Workspace(static_cast<std::size_t>(2 * chunks.count * chunks.channels) * sizeof(float), stream);
}
inline Workspace planes_of(std::int64_t channels, Stream stream) {
  return Workspace(static_cast<std::size_t>(3 * channels) * sizeof(float), stream);
}

// Writes mean, rstd and, in training, the running values; a.y is not touched.
// y = (x - planes[0]) * planes[1] + planes[2] with the result.
void batch_norm2d_statistics(const BatchNorm2dFwdArgs& a, float* planes, Stream stream);

// Writes dgamma and dbeta from the sums of all chunks; a.dx is not touched.
// dx = planes[0] * dy + (planes[1] * (x - mean) + planes[2]) with the result.
void batch_norm2d_gradients(const BatchNorm2dBwdArgs& a, std::int64_t chunks, const float* sums, float* planes,
                            Stream stream);

// V sums of dy, then V of dy * (x - mean), over rows [begin, end), of which row(r, dy, distance) gives V channels; of
// the whole block in the end with its thread row 0. Threads that are not `inside` have no channels.
template <int V, class Row>
__device__ __forceinline__ void chunk_sums(std::int64_t begin, std::int64_t end, bool inside, float* shared,
                                           float (&sums)[2 * V], Row row) {
#pragma unroll
  for (int i = 0; i < 2 * V; ++i) sums[i] = 0.0f;
  if (inside) {
#pragma unroll 2
    for (std::int64_t r = begin + threadIdx.y; r < end; r += blockDim.y) {
      float dy[V], distance[V];
      row(r, dy, distance);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        sums[v] += dy[v];
        sums[V + v] += dy[v] * distance[v];
      }
    }
  }
  reduce_rows(sums, shared, AddAll{});
}

template <int V>
__device__ __forceinline__ void store_sums(const float (&sums)[2 * V], std::int64_t chunk, std::int64_t channels,
                                           std::int64_t c, float* all) {
  if (threadIdx.y != 0 || c >= channels) return;
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    float one[V];
#pragma unroll
    for (int v = 0; v < V; ++v) one[v] = sums[k * V + v];
    store_values(all + (2 * chunk + k) * channels + c, one);
  }
}

// From thread row 0 of a block to all its rows: V values for each of K coefficients. `shared` holds
// K * V * kColumnThreads / 2 floats: enough for two rows and more.
template <int K, int V>
__device__ __forceinline__ void spread_to_rows(float (&values)[K][V], float* shared) {
  if (blockDim.y == 1) return;
  const int width = static_cast<int>(blockDim.x), lane = static_cast<int>(threadIdx.x);
  if (threadIdx.y == 0) {
#pragma unroll
    for (int i = 0; i < K * V; ++i) shared[i * width + lane] = values[i / V][i % V];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < K * V; ++i) values[i / V][i % V] = shared[i * width + lane];
}

// Coefficients of all channels in scratch memory, K planes.
template <int K, int V>
__device__ __forceinline__ void load_planes(const float* planes, std::int64_t channels, std::int64_t c,
                                            float (&values)[K][V]) {
#pragma unroll
  for (int k = 0; k < K; ++k) load_values<V>(planes + k * channels + c, values[k]);
}

}  // namespace stapes::cuda
