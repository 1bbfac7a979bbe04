// Runs of channels in registers: loads and stores of a few neighbours as float32, and where pixels lie.
#pragma once

#include <cstdint>

#include "core/shapes.hpp"
#include "cuda/primitives.cuh"
#include "ops/kernels.hpp"

namespace stapes::cuda {

// kN neighbours by one access, aligned to its size: 4, 8 or 16 bytes, or one element.
template <class T, int kN>
__device__ __forceinline__ void load_channels(const T* p, float (&out)[kN]) {
  constexpr int kBytes = kN * static_cast<int>(sizeof(T));
  if constexpr (kN == 1) {
    out[0] = to_float(*p);
  } else if constexpr (kBytes == 16) {
    load_floats<T>(p, out);
  } else if constexpr (sizeof(T) == 4) {
    static_assert(kN == 2);
    const float2 v = load_vec<float2>(p);
    out[0] = v.x;
    out[1] = v.y;
  } else if constexpr (kN == 4) {
    const uint2 v = load_vec<uint2>(p);
    const float2 low = unpack2<T>(v.x), high = unpack2<T>(v.y);
    out[0] = low.x;
    out[1] = low.y;
    out[2] = high.x;
    out[3] = high.y;
  } else {
    static_assert(kN == 2);
    const float2 v = unpack2<T>(load_vec<std::uint32_t>(p));
    out[0] = v.x;
    out[1] = v.y;
  }
}

template <class T, int kN>
__device__ __forceinline__ void store_channels(T* p, const float (&v)[kN]) {
  constexpr int kBytes = kN * static_cast<int>(sizeof(T));
  if constexpr (kN == 1) {
    *p = from_float<T>(v[0]);
  } else if constexpr (kBytes == 16) {
    store_floats<T>(p, v);
  } else {
    static_assert(kN == 4 && sizeof(T) == 2);
    store_vec(p, make_uint2(pack2<T>(v[0], v[1]), pack2<T>(v[2], v[3])));
  }
}

// The same where there may be fewer than kN (zeros then), or an address that no vector access can have.
template <class T, int kN>
__device__ __forceinline__ void load_channels(const T* p, int count, bool vectors, float (&out)[kN]) {
  if (vectors && count >= kN) return load_channels<T, kN>(p, out);
#pragma unroll
  for (int i = 0; i < kN; ++i) out[i] = i < count ? to_float(p[i]) : 0.0f;
}

template <class T, int kN>
__device__ __forceinline__ void store_channels(T* p, int count, bool vectors, const float (&v)[kN]) {
  if (vectors && count >= kN) return store_channels<T, kN>(p, v);
#pragma unroll
  for (int i = 0; i < kN; ++i)
    if (i < count) p[i] = from_float<T>(v[i]);
}

inline int narrow(std::int64_t v) { return static_cast<int>(v); }
inline bool is_aligned(const void* p, std::size_t bytes) { return reinterpret_cast<std::uintptr_t>(p) % bytes == 0; }

// NaN stays NaN.
__device__ __forceinline__ float relu(float v) { return v < 0.0f ? 0.0f : v; }

// A pixel (n, i, j) of N images of rows x cols, and the way from one to a later one.
struct Pixel {
  int n, i, j;
};

__host__ __device__ inline Pixel pixel_at(std::int64_t index, int rows, int cols) {
  const std::int64_t row = index / cols;
  return {static_cast<int>(row / rows), static_cast<int>(row % rows), static_cast<int>(index % cols)};
}

// step = pixel_at(the distance).
__device__ __forceinline__ void advance(Pixel& at, const Pixel& step, int rows, int cols) {
  at.j += step.j;
  at.i += step.i;
  at.n += step.n;
  if (at.j >= cols) {
    at.j -= cols;
    ++at.i;
  }
  if (at.i >= rows) {
    at.i -= rows;
    ++at.n;
  }
}

// Whether every coordinate that a window can have, and every offset inside of an image, is an int.
inline bool fits_int(const Conv2dShape& s) {
  constexpr double kMost = 1 << 30;
  const auto product = [](auto... sizes) { return (static_cast<double>(sizes) * ...); };
  const Window2d& w = s.window;
  return product(s.N) < kMost && product(s.H, s.W, s.C) < kMost && product(w.P, w.Q, s.K) < kMost &&
         product(w.kernel_h, w.kernel_w, s.C) < kMost &&
         product(s.H) + product(w.pad_top) + product(w.stride_h, w.P + 4) + product(w.dil_h, w.kernel_h) < kMost &&
         product(s.W) + product(w.pad_left) + product(w.stride_w, w.Q + 4) + product(w.dil_w, w.kernel_w) < kMost;
}

}  // namespace stapes::cuda
