// Epilogues of the implicit GEMM (conv2d_gemm.cuh): what becomes of the accumulators.
#pragma once

#include "cuda/conv2d_index.cuh"
#include "cuda/conv2d_tile.cuh"

namespace stapes::cuda {

// Pixels in memory order: line m of D is pixel m.
struct EveryPixel {
  int count;
  __device__ __forceinline__ std::int64_t index(int m) const { return m < count ? m : -1; }
};

// y[pixel of m, n] = D[m,n] + b[n], ReLU on request, rounded to T. `Pixels` has index(m): the pixel that line m of D
// is, counted in y, or -1 where it is none.
template <class T, class Pixels>
struct StoreImages {
  T* y;                   // at the group's first channel
  const float* b;         // likewise; may be null
  std::int64_t channels;  // of y: from a pixel to the next
  int count;              // channels of the group: n below
  bool relu;
  bool pairs;  // two channels at once: y at multiples of two elements
  Pixels pixels;

  template <class Tile, class Place>
  __device__ __forceinline__ void operator()(const Accumulators<Tile>& acc, const Place& place) const {
    float bias[Tile::kColumns];
#pragma unroll
    for (int j = 0; j < Tile::kColumns; ++j) {
      const int n = place.column(j);
      bias[j] = b != nullptr && n < count ? b[n] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < Tile::kRows; ++i) {
      const std::int64_t pixel = pixels.index(place.row(i));
      if (pixel < 0) continue;
      T* const to = y + pixel * channels;
#pragma unroll
      for (int j = 0; j < Tile::kColumns; j += 2) {
        const int n = place.column(j);
        store(to + n, count - n, finish(acc.at(i, j) + bias[j]), finish(acc.at(i, j + 1) + bias[j + 1]));
      }
    }
  }

 private:
  __device__ __forceinline__ float finish(float v) const { return relu && v < 0.0f ? 0.0f : v; }

  __device__ __forceinline__ void store(T* to, int left, float first, float second) const {
    if (pairs && left >= 2) {
      if constexpr (sizeof(T) == 4) {
        store_vec(to, make_float2(first, second));
      } else {
        store_vec(to, pack2<T>(first, second));
      }
      return;
    }
    if (left >= 1) to[0] = from_float<T>(first);
    if (left >= 2) to[1] = from_float<T>(second);
  }
};

}  // namespace stapes::cuda
