// Pooling windows that lie side by side from the corner of the image, stride and size being the same, without padding.
// Rows and columns that are left over belong to no window.
#pragma once

#include "cuda/pool_window.cuh"
#include "cuda/window_max.cuh"
#include "ops/kernels.hpp"

namespace stapes::cuda {

// kSize x kSize places, so that all accesses are known to the compiler, or `rows` x `cols` where kSize is 0.
template <int kSize>
struct PoolTiles {
  std::int64_t N, H, W, C, P, Q;
  int rows, cols;

  static PoolTiles of(const PooledMap& m) {
    return {m.N, m.H, m.W, m.C, m.H / m.pool_h, m.W / m.pool_w, narrow(m.pool_h), narrow(m.pool_w)};
  }

  __host__ __device__ std::int64_t count() const { return N * P * Q; }
  __host__ __device__ int height() const { return kSize > 0 ? kSize : rows; }
  __host__ __device__ int width() const { return kSize > 0 ? kSize : cols; }
  __host__ __device__ int places() const { return height() * width(); }

  // Where window (p, q) of image n, or what is left of it at the end of the image, begins in x.
  __device__ std::int64_t corner(std::int64_t n, std::int64_t p, std::int64_t q) const {
    return ((n * H + p * height()) * W + q * width()) * C;
  }
  // f(place, distance in x from the corner) for all places, in scan order.
  template <class F>
  __device__ __forceinline__ void for_places(F&& f) const {
    for (int i = 0; i < height(); ++i) {
      for (int j = 0; j < width(); ++j) f(i * width() + j, (i * W + j) * C);
    }
  }
  // f(distance) for the pixels where the image ends within (p, q), which is no window then.
  template <class F>
  __device__ __forceinline__ void for_left_over(std::int64_t p, std::int64_t q, F&& f) const {
    const std::int64_t i_end = min(H - p * height(), std::int64_t{height()});
    const std::int64_t j_end = min(W - q * width(), std::int64_t{width()});
    for (std::int64_t i = 0; i < i_end; ++i) {
      for (std::int64_t j = 0; j < j_end; ++j) f((i * W + j) * C);
    }
  }
};

// Calls f with the tiles; ReLU alone and the common window are compiled for themselves.
template <class F>
void with_tiles(const PooledMap& m, F&& f) {
  const auto is = [&](std::int64_t size) { return m.pool_h == size && m.pool_w == size; };
  if (is(1)) return f(PoolTiles<1>::of(m));
  if (is(2)) return f(PoolTiles<2>::of(m));
  f(PoolTiles<0>::of(m));
}

}  // namespace stapes::cuda
