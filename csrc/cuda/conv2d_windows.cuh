// Pooling in the epilogue of the implicit GEMM (conv2d_gemm.cuh): lines of D are dealt out so that the pixels of a
// window are rows of one thread, which are 8 lines apart (conv2d_tile.cuh).
#pragma once

#include "cuda/conv2d_index.cuh"
#include "cuda/conv2d_tile.cuh"
#include "cuda/window_max.cuh"

namespace stapes::cuda {

// Windows of kArea = 2 or 4 pixels: line m is place m / 8 % kArea of window m / (8 * kArea) * 8 + m % 8. Has what
// Patches asks of its pixels.
template <int kArea>
struct WindowPixels {
  static_assert(kArea == 2 || kArea == 4);

  PixelRow windows;  // N images of rows x cols of them
  int pool_h, pool_w;

  __device__ __forceinline__ static int window(int m) { return m / (8 * kArea) * 8 + m % 8; }
  __device__ __forceinline__ static int place(int m) { return m / 8 % kArea; }

  __device__ __forceinline__ bool holds(int m) const { return windows.holds(window(m)); }
  __device__ __forceinline__ Digits pixel(int m) const {
    const Digits at = windows.pixel(window(m));
    const int r = place(m) / pool_w, s = place(m) - r * pool_w;
    return {at.high, at.middle * pool_h + r, at.low * pool_w + s};
  }

  static std::int64_t lines(std::int64_t windows) { return ceil_div<std::int64_t>(windows, 8) * 8 * kArea; }
};

// y[window, n] = max(0, max over the window's lines m of D[m,n] + b[n]), rounded to T, and argmax.
template <class T, int kArea>
struct StoreWindows {
  T* y;
  std::uint8_t* argmax;
  const float* b;         // may be null
  std::int64_t channels;  // from a window to the next: K
  int windows;
  bool pairs;  // two channels at once: y and argmax at multiples of two elements

  template <class Tile, class Place>
  __device__ __forceinline__ void operator()(const Accumulators<Tile>& acc, const Place& place) const {
    static_assert(Tile::kRows % kArea == 0);
    const int count = static_cast<int>(channels);
    float bias[Tile::kColumns];
#pragma unroll
    for (int j = 0; j < Tile::kColumns; ++j) {
      const int n = place.column(j);
      bias[j] = b != nullptr && n < count ? b[n] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < Tile::kRows; i += kArea) {
      const int window = WindowPixels<kArea>::window(place.row(i));
      if (window >= windows) continue;
      const std::int64_t row = window * channels;
#pragma unroll
      for (int j = 0; j < Tile::kColumns; j += 2) {
        const int n = place.column(j);
        store(row + n, count - n, most(acc, i, j, bias[j]), most(acc, i, j + 1, bias[j + 1]));
      }
    }
  }

 private:
  template <class Tile>
  __device__ __forceinline__ static WindowMax most(const Accumulators<Tile>& acc, int i, int j, float bias) {
    float z[kArea];
#pragma unroll
    for (int a = 0; a < kArea; ++a) z[a] = acc.at(i + a, j) + bias;
    return window_max(z);
  }

  __device__ __forceinline__ void store(std::int64_t to, int left, const WindowMax& first,
                                        const WindowMax& second) const {
    const auto first_place = static_cast<std::uint8_t>(first.place);
    const auto second_place = static_cast<std::uint8_t>(second.place);
    if (pairs && left >= 2) {
      if constexpr (sizeof(T) == 4) {
        store_vec(y + to, make_float2(first.value, second.value));
      } else {
        store_vec(y + to, pack2<T>(first.value, second.value));
      }
      store_vec(argmax + to, make_uchar2(first_place, second_place));
      return;
    }
    if (left >= 1) {
      y[to] = from_float<T>(first.value);
      argmax[to] = first_place;
    }
    if (left >= 2) {
      y[to + 1] = from_float<T>(second.value);
      argmax[to + 1] = second_place;
    }
  }
};

}  // namespace stapes::cuda
