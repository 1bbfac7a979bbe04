// Reductions over the rows of a (rows, C) array, channels innermost, by blocks of lanes x rows threads: threadIdx.x
// chooses V neighbouring channels, threadIdx.y a row, and every thread goes on by blockDim.y rows. All sizes follow
// from the array's shape alone, so the order of every sum does as well.
#pragma once

#include "cuda/items.cuh"

namespace stapes::cuda {

inline constexpr int kColumnThreads = 256;

// The least power of two >= n, at most `limit`, itself one.
inline int pow2_for(std::int64_t n, int limit) {
  int p = 1;
  while (p < limit && p < n) p *= 2;
  return p;
}

// The rows of a block, from shape and dtype alone: V, which depends on addresses too, must not change the order of
// sums. Lanes take 128 bytes of a row, or all of it where it is shorter, and more where there are few rows.
template <class T>
int column_height(std::int64_t rows, std::int64_t channels) {
  const bool vectors = channels % kVec<T> == 0;
  const int wide = pow2_for(vectors ? channels / kVec<T> : channels, vectors ? 8 : 32);
  return pow2_for(rows, kColumnThreads / wide);
}

template <int V>
dim3 column_block(int height, std::int64_t channels) {
  return dim3(static_cast<unsigned>(pow2_for(channels / V, kColumnThreads / height)), static_cast<unsigned>(height));
}

// How many blocks stand side by side.
template <int V>
std::int64_t column_groups(const dim3& block, std::int64_t channels) {
  return ceil_div<std::int64_t>(channels / V, block.x);
}

// The first of the thread's channels, in group `group` of blocks; it may lie beyond the last one.
template <int V>
__device__ __forceinline__ std::int64_t thread_channel(std::int64_t group) {
  return (group * blockDim.x + threadIdx.x) * V;
}

// Joins the M numbers of all threads with the same threadIdx.x: merge(mine, other) along a tree over threadIdx.y. Those
// with threadIdx.y == 0 get the result. Every thread of the block must come; `shared` holds M * kColumnThreads floats,
// and is free again after a barrier.
template <int M, class Merge>
__device__ __forceinline__ void reduce_rows(float (&mine)[M], float* shared, Merge merge) {
  const int row = static_cast<int>(threadIdx.y), width = static_cast<int>(blockDim.x);
  const int me = row * width + static_cast<int>(threadIdx.x);
  for (int upper = static_cast<int>(blockDim.y) / 2; upper > 0; upper /= 2) {
    if (row >= upper && row < 2 * upper) {
#pragma unroll
      for (int m = 0; m < M; ++m) shared[m * kColumnThreads + me] = mine[m];
    }
    __syncthreads();  // one a level: those below write elsewhere
    if (row < upper) {
      float other[M];
#pragma unroll
      for (int m = 0; m < M; ++m) other[m] = shared[m * kColumnThreads + me + upper * width];
      merge(mine, other);
    }
  }
}

struct AddAll {
  template <int M>
  __device__ void operator()(float (&mine)[M], const float (&other)[M]) const {
#pragma unroll
    for (int m = 0; m < M; ++m) mine[m] += other[m];
  }
};

// V floats at p, a multiple of 16 bytes where V > 1.
template <int V>
__device__ __forceinline__ void load_values(const float* p, float (&out)[V]) {
  if constexpr (V == 1) {
    out[0] = *p;
  } else {
#pragma unroll
    for (int i = 0; i < V; i += 4) {
      const auto four = load_vec<float4>(p + i);
      out[i] = four.x;
      out[i + 1] = four.y;
      out[i + 2] = four.z;
      out[i + 3] = four.w;
    }
  }
}

template <int V>
__device__ __forceinline__ void store_values(float* p, const float (&v)[V]) {
  if constexpr (V == 1) {
    *p = v[0];
  } else {
#pragma unroll
    for (int i = 0; i < V; i += 4) store_vec(p + i, make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]));
  }
}

}  // namespace stapes::cuda
