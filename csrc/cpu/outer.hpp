// Sums of outer products of rows that lie together in scratch memory: the inner part of weight gradients that first
// transform or copy what they read.
#pragma once

#include "cpu/conv2d.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

// Elements from one row to the next: an odd number of cache lines, so that many rows do not meet in a few sets of the
// cache, as they do at powers of two.
template <class T>
Index scratch_row(Index n) {
  constexpr Index kLine = 64 / sizeof(T);
  return (ceil_div(n, kLine) | 1) * kLine;
}

// Brings memory that will be read soon into the cache, a piece at each of `calls` calls.
class Prefetch {
 public:
  template <class T>
  Prefetch(const T* begin, Index elements, Index calls)
      : at_(reinterpret_cast<const char*>(begin)),
        left_(elements * static_cast<Index>(sizeof(T))),
        piece_(round_up(ceil_div(left_, calls), kLine)) {}

  void operator()() {
    const Index n = least(piece_, left_);
    for (Index i = 0; i < n; i += kLine) __builtin_prefetch(at_ + i, 0, 2);
    at_ += n;
    left_ -= n;
  }

 private:
  static constexpr Index kLine = 64;
  const char* at_;
  Index left_, piece_;
};

// sums (K,C) += y^T x, of `count` rows x (whole vectors of C) and y (K).
template <class T>
struct OuterProducts {
  static constexpr Index kRows = kTileRows<kMaxTileVectors>;  // k are shared out by so many

  Index C, x_row, y_row, sums_row;

  // Into how many shares K is cut so that all threads have work, and the i-th of them: whole tiles.
  static Index splits(Index threads, Index chunks, Index K) {
    return threads > chunks ? least(ceil_div(threads, chunks), ceil_div(K, kRows)) : 1;
  }
  static Range share(Index K, Index splits, Index i) {
    const Range tiles = part(ceil_div(K, kRows), splits, i);
    return {tiles.begin * kRows, least(tiles.end * kRows, K)};
  }

  // For k in `ks`; how k are shared out does not change their sums. between() is called before each tile.
  template <class F>
  void add(const T* x, const T* y, Index count, Range ks, T* sums, const F& between) const {
    const Blocks<T> blocks(C);
    for (Index b = 0; b < blocks.count; ++b) {
      const Range block = blocks.block(b);
      const Index c = block.begin * kLanes<T>;
      with_vectors(static_cast<int>(block.end - block.begin),
                   [&]<int NV>() { add_block<NV>(x + c, y, count, ks, sums + c, between); });
    }
  }

 private:
  // Not inlined: in a function of its own the inner loop's pointers stay in registers.
  template <int NV, class F>
  [[gnu::noinline]] void add_block(const T* x, const T* y, Index count, Range ks, T* sums, const F& between) const {
    constexpr int MR = kTileRows<NV>;
    for (Index k = ks.begin; k < ks.end; k += MR) {
      const T* from[MR];
      T* to[MR];
      for (int m = 0; m < MR; ++m) {
        const Index row = least(k + m, ks.end - 1);
        from[m] = y + row;
        to[m] = sums + row * sums_row;
      }
      between();
      Tile<T, MR, NV> tile;
      tile.load_from(to, NV * kLanes<T>);
      tile.add_outer(from, y_row, x, x_row, count);
      tile.store_to(to, static_cast<int>(least(MR, ks.end - k)), NV * kLanes<T>);
    }
  }
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
