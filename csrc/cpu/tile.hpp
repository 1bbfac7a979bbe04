// Register tiles: the innermost loops of the convolution kernels, and the only place that counts registers.
#pragma once

#include "cpu/band.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

// A run of consecutive elements of a patch that one output reads: offset from the output's own origin.
struct Segment {
  Index offset, length;
};

inline constexpr int kMaxTileVectors = STAPES_VECTOR_BYTES == 64 ? 4 : 2;

// How many rows (pixels, or channels in wgrad) a tile of so many vectors has. AVX-512 has 32 registers, the others here
// 16; each needs NV + 1 besides the accumulators, and each row needs a pointer of 15.
constexpr int tile_rows(int vectors) {
  return vectors == 1 || (STAPES_VECTOR_BYTES == 64 && vectors < kMaxTileVectors) ? 8 : 6;
}
template <int NV>
inline constexpr int kTileRows = tile_rows(NV);

template <class T, int MR, int NV>
struct Tile {
  Vec<T> acc[MR][NV];

  [[gnu::always_inline]] void set(const T* row) {
#pragma GCC unroll 9
    for (int m = 0; m < MR; ++m)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[m][v] = load(row + v * kLanes<T>);
  }

  // Row m from y[m], of which `width` elements are there.
  [[gnu::always_inline]] void load_from(const T* const* y, Index width) {
#pragma GCC unroll 9
    for (int m = 0; m < MR; ++m)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        const Index left = width - v * kLanes<T>;
        acc[m][v] = left >= kLanes<T> ? load(y[m] + v * kLanes<T>)
                    : left > 0        ? load_part(y[m] + v * kLanes<T>, static_cast<int>(left))
                                      : Vec<T>{};
      }
  }

  // acc[m] += sum over the segments of x[m][i] * w[i]; w is a panel (total length, NV vectors). Long ones by four:
  // where another thread has half of the core's slots, what the loop itself takes of them counts.
  [[gnu::always_inline]] void add_dense(const T* const* x, const Segment* segments, Index count, const T* w) {
    constexpr Index kLong = 16;
    for (const Segment* s = segments; s != segments + count; ++s) {
      const T* p[MR];
#pragma GCC unroll 9
      for (int m = 0; m < MR; ++m) p[m] = x[m] + s->offset;
      if (s->length < kLong) {
        for (Index i = 0; i < s->length; ++i, w += NV * kLanes<T>) add_product(p, i, w);
      } else {
#pragma GCC unroll 4
        for (Index i = 0; i < s->length; ++i, w += NV * kLanes<T>) add_product(p, i, w);
      }
    }
  }

  // acc[m] += x[m][tap] * w[tap] elementwise: depthwise. `w` steps by `w_stride` from tap to tap.
  [[gnu::always_inline]] void add_depthwise(const T* const* x, const Segment* taps, Index count, const T* w,
                                            Index w_stride) {
    for (Index t = 0; t < count; ++t, w += w_stride) {
      Vec<T> b[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) b[v] = load(w + v * kLanes<T>);
#pragma GCC unroll 9
      for (int m = 0; m < MR; ++m)
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) acc[m][v] += load(x[m] + taps[t].offset + v * kLanes<T>) * b[v];
    }
  }

  // acc[m] += a[m] * b over `count` pixels, which lie a_step and b_step apart: a sum of outer products.
  [[gnu::always_inline]] void add_outer(const T* const* a, Index a_step, const T* b, Index b_step, Index count) {
    const T* p[MR];
#pragma GCC unroll 9
    for (int m = 0; m < MR; ++m) p[m] = a[m];
#pragma GCC unroll 4
    for (Index i = 0; i < count; ++i, b += b_step) add_product(p, i * a_step, b);
  }

  [[gnu::always_inline]] void relu() {
    const Vec<T> zero{};
#pragma GCC unroll 9
    for (int m = 0; m < MR; ++m)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[m][v] = acc[m][v] < zero ? zero : acc[m][v];
  }

  // acc[m] += p[m][at] * b.
  [[gnu::always_inline]] void add_product(const T* const* p, Index at, const T* b) {
    Vec<T> y[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) y[v] = load(b + v * kLanes<T>);
#pragma GCC unroll 9
    for (int m = 0; m < MR; ++m) {
      const Vec<T> x = splat(p[m][at]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[m][v] += x * y[v];
    }
  }

  // Row m to y[m], `width` elements of it, for the first `rows` rows.
  [[gnu::always_inline]] void store_to(T* const* y, int rows, Index width) const {
    if (rows >= MR && width >= NV * kLanes<T>) {
#pragma GCC unroll 9
      for (int m = 0; m < MR; ++m)
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) store(y[m] + v * kLanes<T>, acc[m][v]);
      return;
    }
#pragma GCC unroll 9
    for (int m = 0; m < MR; ++m) {
      if (m >= rows) break;
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        const Index left = width - v * kLanes<T>;
        if (left >= kLanes<T>) {
          store(y[m] + v * kLanes<T>, acc[m][v]);
        } else if (left > 0) {
          store_part(y[m] + v * kLanes<T>, acc[m][v], static_cast<int>(left));
        }
      }
    }
  }
};

// Calls f.operator()<NV>() for nv = 1 .. kMaxTileVectors.
template <class F>
[[gnu::always_inline]] inline void with_vectors(int nv, const F& f) {
  if (nv == 1) return f.template operator()<1>();
  if constexpr (kMaxTileVectors == 4) {
    if (nv == 3) return f.template operator()<3>();
    if (nv == 4) return f.template operator()<4>();
  }
  f.template operator()<2>();
}

}  // namespace stapes::cpu::STAPES_ISA_NAME
