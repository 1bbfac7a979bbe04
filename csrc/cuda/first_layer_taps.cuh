// What the kernels of the first layer share: its sizes, the order of its pixels, and im2col of a pixel.
#pragma once

#include "cuda/channels.cuh"

namespace stapes::cuda {

// Pixels are numbered window by window of pool_h x pool_w, and inside of a window in scan order, so that a window's are
// neighbours. Without pooling a window is 1 x 1. rows x cols windows an image: what does not fill a window is not
// there.
struct FirstLayer {
  int H, W, C, K, R, S;
  int stride_h, stride_w, pad_top, pad_left, dil_h, dil_w;
  int pool_h, pool_w, rows, cols;
  int depth;  // R * S * C
  std::int64_t windows;
};

inline FirstLayer first_layer(const Conv2dShape& s, std::int64_t pool_h, std::int64_t pool_w) {
  const Window2d& w = s.window;
  const std::int64_t rows = w.P / pool_h, cols = w.Q / pool_w;
  return {narrow(s.H),
          narrow(s.W),
          narrow(s.C),
          narrow(s.K),
          narrow(w.kernel_h),
          narrow(w.kernel_w),
          narrow(w.stride_h),
          narrow(w.stride_w),
          narrow(w.pad_top),
          narrow(w.pad_left),
          narrow(w.dil_h),
          narrow(w.dil_w),
          narrow(pool_h),
          narrow(pool_w),
          narrow(rows),
          narrow(cols),
          narrow(w.kernel_h * w.kernel_w * s.C),
          s.N * rows * cols};
}

inline bool is_first_layer(const Conv2dShape& s) {
  return s.groups == 1 && (s.C == 1 || s.C == 3) && s.N * s.window.P * s.window.Q < (std::int64_t{1} << 37) &&
         fits_int(s);
}

// Where in x the kernel lies that gives a pixel: a place of the window `at`.
template <class T>
struct Corner {
  const T* image;
  int i, j;
};

template <class T>
__device__ __forceinline__ Corner<T> corner_of(const FirstLayer& a, const T* x, const Pixel& at, int place) {
  const int p = at.i * a.pool_h + place / a.pool_w, q = at.j * a.pool_w + place % a.pool_w;
  return {x + std::int64_t{at.n} * a.H * a.W * a.C, p * a.stride_h - a.pad_top, q * a.stride_w - a.pad_left};
}

// A place (r, s, c) of the kernel; they are numbered as they lie in w.
struct Tap {
  int r, s, c;
};

__device__ __forceinline__ Tap tap_at(const FirstLayer& a, int index) {
  const int place = index / a.C;
  return {place / a.S, place % a.S, index % a.C};
}

__device__ __forceinline__ void next(const FirstLayer& a, Tap& tap) {
  if (++tap.c < a.C) return;
  tap.c = 0;
  if (++tap.s < a.S) return;
  tap.s = 0;
  ++tap.r;
}

template <class T>
__device__ __forceinline__ float value_at(const FirstLayer& a, const Corner<T>& corner, const Tap& tap) {
  const int i = corner.i + tap.r * a.dil_h, j = corner.j + tap.s * a.dil_w;
  const bool inside = i >= 0 && i < a.H && j >= 0 && j < a.W;
  return inside ? to_float(corner.image[(i * a.W + j) * a.C + tap.c]) : 0.0f;
}

}  // namespace stapes::cuda
