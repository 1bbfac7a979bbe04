// dw of a convolution in groups of few channels, G in x and as many in dy; taps in a row that lie side by side, and a
// stride of 1 along it: dw[k,r,s,j] = sum over the outputs of dy[k] * x[what tap (r,s) reads, the j-th of k's group]
// Work: a vector holds whole groups. A pixel of x is spread to G vectors, of which the j-th has in each lane the j-th
// channel of the lane's group, and these are multiplied by the gradients of the outputs that read the pixel through a
// row of taps. The sums, S * G vectors, stay in registers along some rows of outputs.
// Threads: pieces of the rows of all images, a number fixed by the shape, with sums of their own.
// Numerics: sums in T, a piece's rows in order, the pixels of each in order, then the pieces in order. Overwrites.
#pragma once

#include "cpu/conv2d.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

template <class T>
class NarrowWgrad {
 public:
  static bool can(const Conv2dShape& s) {
    const Index G = s.C / s.groups;
    const bool whole = s.C == s.K && (G == kHalf || G == kQuarter) && G > 1 && s.C % kLanes<T> == 0;
    const bool shared_out = s.N * s.window.P >= kLeastRows;  // between threads
    return whole && shared_out && s.window.kernel_w * G <= kMostSums && s.window.kernel_w <= kMostTaps &&
           s.window.stride_w == 1 && s.window.dil_w == 1;
  }

  NarrowWgrad(const T* x, const T* dy, const Conv2dShape& s)
      : x_(x), dy_(dy), s_(s), G_(s.C / s.groups), size_(s.C * s.window.kernel_h * s.window.kernel_w * G_) {}

  void run(T* dw) const {
    const Index R = s_.window.kernel_h, sums_row = s_.window.kernel_w * G_ * kLanes<T>;
    const Index pieces = clamp(kMostElements / size_, 1, least(s_.N * s_.window.P, kMostPieces));
    const Workspace sums = workspace_of<T>((pieces + 1) * size_);
    T* all = sums.as<T>();
    const Index at_once = clamp(kRowElements / (s_.W * s_.C), 1, kRows);
    parallel_for(pieces, [&](Index piece) {
      T* own = all + (piece + 1) * size_;
      std::memset(static_cast<void*>(own), 0, static_cast<std::size_t>(size_) * sizeof(T));
      const Range rows = part(s_.N * s_.window.P, pieces, piece);
      for (Index i = rows.begin; i < rows.end;) {
        const Index n = i / s_.window.P, p = i % s_.window.P;
        const Index count = least(least(rows.end - i, s_.window.P - p), at_once);
        for (Index c = 0; c < s_.C; c += kLanes<T>)
          for (Index r = 0; r < R; ++r) add_rows(n, {p, p + count}, r, c, own + (c / kLanes<T> * R + r) * sums_row);
        i += count;
      }
    });
    add_pieces(all + size_, pieces, size_, size_, all);
    for (Index k = 0; k < s_.K; ++k) {
      const T* from = all + k / kLanes<T> * R * sums_row + k % kLanes<T>;
      for (Index i = 0; i < R * s_.window.kernel_w * G_; ++i) *dw++ = from[i * kLanes<T>];
    }
  }

 private:
  static constexpr int kHalf = kLanes<T> / 2, kQuarter = kHalf > 1 ? kHalf / 2 : kHalf, kMostTaps = 3;
  static constexpr Index kMostPieces = 64, kMostElements = Index{1} << 21;  // of all pieces together
  static constexpr Index kMostSums = STAPES_VECTOR_BYTES == 64 ? 24 : 12;   // vectors: what the registers hold
  static constexpr Index kRows = 8, kRowElements = 32 * 1024;  // at a time, of outputs: their pixels stay in the cache
  static constexpr Index kLeastRows = 16;

  void add_rows(Index n, Range rows, Index r, Index c, T* sums) const {
    const auto with_group = [&]<int G>() {
      switch (s_.window.kernel_w) {
        case 1: return add<G, 1>(n, rows, r, c, sums);
        case 2: return add<G, 2>(n, rows, r, c, sums);
        default: return add<G, 3>(n, rows, r, c, sums);
      }
    };
    G_ == kHalf ? with_group.template operator()<kHalf>() : with_group.template operator()<kQuarter>();
  }

  // To the sums (S, G, lanes) of the r-th row of taps and a vector of channels from the c-th on.
  template <int G, int kS>
  void add(Index n, Range rows, Index r, Index c, T* sums) const {
    const Window2d& w = s_.window;
    Vec<T> acc[kS][G];
#pragma GCC unroll 24
    for (int i = 0; i < kS * G; ++i) acc[i / G][i % G] = load(sums + i * kLanes<T>);
    for (Index p = rows.begin; p < rows.end; ++p) {
      const Index h = p * w.stride_h + r * w.dil_h - w.pad_top;
      if (h < 0 || h >= s_.H) continue;
      const T *x = x_ + (n * s_.H + h) * s_.W * s_.C + c, *dy = dy_ + (n * w.P + p) * w.Q * s_.K + c;
      // Pixel i is read by output i + pad - s through tap s.
      const Index inner = clamp(kS - 1 - w.pad_left, 0, s_.W), end = clamp(w.Q - w.pad_left, inner, s_.W);
      for (Index i = 0; i < inner; ++i) add_pixel<true>(x, dy, i, acc);
      for (Index i = inner; i < end; ++i) add_pixel<false>(x, dy, i, acc);
      for (Index i = end; i < s_.W; ++i) add_pixel<true>(x, dy, i, acc);
    }
#pragma GCC unroll 24
    for (int i = 0; i < kS * G; ++i) store(sums + i * kLanes<T>, acc[i / G][i % G]);
  }

  // kEdge: some of the outputs may not be there.
  template <bool kEdge, int kS, int G>
  [[gnu::always_inline]] void add_pixel(const T* x, const T* dy, Index i, Vec<T> (&acc)[kS][G]) const {
    Vec<T> g[kS];
    bool there[kS];
#pragma GCC unroll 3
    for (int s = 0; s < kS; ++s) {
      const Index q = i + s_.window.pad_left - s;
      there[s] = !kEdge || (q >= 0 && q < s_.window.Q);
      g[s] = there[s] ? load(dy + q * s_.K) : Vec<T>{};
    }
    const Vec<T> pixel = load(x + i * s_.C);
    const auto add = [&]<int j>(std::integral_constant<int, j>) {
      const Vec<T> spread = spread_channel<G, j>(pixel, std::make_integer_sequence<int, kLanes<T>>());
#pragma GCC unroll 3
      for (int s = 0; s < kS; ++s)
        if (there[s]) acc[s][j] += spread * g[s];  // no product with what is not there: x may be infinite
    };
    [&]<int... j>(std::integer_sequence<int, j...>) {
      (add(std::integral_constant<int, j>()), ...);
    }(std::make_integer_sequence<int, G>());
  }

  // In each lane the j-th channel of its group.
  template <int G, int j, int... l>
  [[gnu::always_inline]] static Vec<T> spread_channel(Vec<T> pixel, std::integer_sequence<int, l...>) {
    return __builtin_shufflevector(pixel, pixel, (l / G * G + j)...);
  }

  const T *x_, *dy_;
  Conv2dShape s_;
  Index G_, size_;  // of a group, and of dw
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
