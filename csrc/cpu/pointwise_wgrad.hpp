// The weight gradient of a 1x1 convolution, or of Linear, over many pixels: dw (K,C) = sum over pixels of dy (K) x (C)
// Work: some pixels of x and dy at a time are copied to rows that lie together, which reads memory in order; their
// outer products are added to sums in memory (outer.hpp), while the next pixels are fetched. The pixels are cut
// into chunks, a number fixed by the shape, with sums of their own; where there are more threads than chunks, these
// share a chunk's k.
// Numerics: sums in T, a chunk's pixels in order, then the chunks in order. Overwrites.
#pragma once

#include "cpu/dense.hpp"
#include "cpu/outer.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

template <class T>
class PointwiseWgrad {
 public:
  // `flat` as flatten_pointwise makes it.
  static bool takes(const Conv2dShape& flat) {
    constexpr Index kFewestPixels = 256;
    return Dense::is_row_of_pixels(flat) && flat.groups == 1 && flat.W >= kFewestPixels && flat.C >= 2 * kLanes<T> &&
           flat.K >= kLanes<T>;
  }

  PointwiseWgrad(const T* x, const T* dy, const Conv2dShape& flat)
      : x_(x),
        dy_(dy),
        pixels_(flat.W),
        C_(flat.C),
        K_(flat.K),
        products_{flat.C, scratch_row<T>(flat.C), scratch_row<T>(flat.K), round_up(flat.C, kLanes<T>)},
        block_(clamp(kBlock / (flat.C + flat.K), 32, 128)) {}

  void run(T* dw) const {
    const Index size = K_ * products_.sums_row, blocks = ceil_div(pixels_, block_);
    const Index chunks = clamp(kMostSums / size, 1, least(blocks, kTasksWanted));
    const int threads = num_threads();
    const Index splits = products_.splits(threads, chunks, K_);
    const Workspace sums = workspace_of<T>(chunks * size), scratch = workspace_of<T>(threads * scratch_elements());
    parallel_for(chunks * splits, threads, [&](Index task, int thread) {
      const Index i = task / splits;
      add_chunk(part(blocks, chunks, i), products_.share(K_, splits, task % splits),
                scratch.as<T>() + thread * scratch_elements(), sums.as<T>() + i * size);
    });
    parallel_for(K_, threads, [&](Index k) {
      for (Index c = 0; c < C_; ++c) {
        const T* from = sums.as<T>() + k * products_.sums_row + c;
        T sum = from[0];
        for (Index i = 1; i < chunks; ++i) sum += from[i * size];
        dw[k * C_ + c] = sum;
      }
    });
  }

 private:
  static constexpr Index kBlock = 9 * 1024;    // elements: of x and dy, in L1
  static constexpr Index kMostSums = 1 << 19;  // elements, of all chunks

  Index scratch_elements() const { return block_ * (products_.x_row + products_.y_row); }

  void add_chunk(Range blocks, Range ks, T* scratch, T* sums) const {
    std::memset(static_cast<void*>(sums + ks.begin * products_.sums_row), 0,
                static_cast<std::size_t>((ks.end - ks.begin) * products_.sums_row) * sizeof(T));
    T *x = scratch, *dy = scratch + block_ * products_.x_row;
    const Index tiles = Blocks<T>(C_).count * ceil_div(ks.end - ks.begin, OuterProducts<T>::kRows);
    for (Index i = blocks.begin; i < blocks.end; ++i) {
      const Index first = i * block_, count = least(block_, pixels_ - first);
      copy_rows(x_ + first * C_, C_, count, x, products_.x_row);
      copy_rows(dy_ + first * K_, K_, count, dy, products_.y_row);
      const Index behind = first + count, next = least(block_, pixels_ - behind);
      Prefetch next_x(x_ + behind * C_, next * C_, tiles), next_dy(dy_ + behind * K_, next * K_, tiles);
      products_.add(x, dy, count, ks, sums, [&] {
        next_x();
        next_dy();
      });
    }
  }

  static void copy_rows(const T* from, Index n, Index count, T* to, Index to_row) {
    const Index whole = n / kLanes<T> * kLanes<T>;
    for (Index i = 0; i < count; ++i, from += n, to += to_row) {
      for (Index j = 0; j < whole; j += kLanes<T>) store(to + j, load(from + j));
      if (whole < n) store(to + whole, load_part(from + whole, static_cast<int>(n - whole)));
    }
  }

  const T *x_, *dy_;
  Index pixels_, C_, K_;
  OuterProducts<T> products_;
  Index block_;  // pixels copied at a time
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
