// What forward and backward of batch normalisation share: how rows are cut into chunks, and results per channel.
#pragma once

#include "cuda/columns.cuh"
#include "ops/kernels.hpp"

namespace stapes::cuda {

// (rows, C) in chunks of rows x groups of channels, a block each; from shape and dtype alone. Up to kFusedRows one
// chunk holds all rows, and one kernel does everything.
struct RowChunks {
  static constexpr std::int64_t kFusedRows = 1024, kLeastRows = 256, kBlocks = 512;

  std::int64_t rows, channels, chunk_rows, count;
  int height;  // rows of a block

  template <class T>
  static RowChunks of(T, std::int64_t rows, std::int64_t channels) {
    const int height = column_height<T>(rows, channels);
    const std::int64_t across = kColumnThreads / height * (channels % kVec<T> == 0 ? kVec<T> : 1);
    const std::int64_t groups = ceil_div(channels, across), most = groups < kBlocks ? kBlocks / groups : 1;
    const std::int64_t even = ceil_div(rows, most);
    const std::int64_t chunk_rows = rows <= kFusedRows ? kFusedRows : even < kLeastRows ? kLeastRows : even;
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
