// A first layer (1 or 3 channels, 3x3, stride 1) with ReLU and 2 x 2 max pooling: the four outputs of a window, for a
// block of K, are summed in registers and pooled there.
// Work: bands of whole windows (band.hpp); for each block of K (Blocks, of the panels of conv2d.hpp) all windows of the
// band. The loops over taps and channels are unrolled, so nothing is left in them but loads and multiply-adds.
// Numerics: those of direct.hpp: one chain for each output, in the order of taps and channels, beginning with the bias.
#pragma once

#include "cpu/pool_sparse.hpp"
#include "cpu/pool_tile.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

template <class T>
class FirstPool {
 public:
  static bool can(const Conv2dShape& s, const PoolGrid& pool) {
    const Window2d& w = s.window;
    return pool.pool_h == 2 && pool.pool_w == 2 && (s.C == 1 || s.C == 3) && w.kernel_h == 3 && w.kernel_w == 3 &&
           w.stride_h == 1 && w.stride_w == 1 && w.dil_h == 1 && w.dil_w == 1;
  }

  FirstPool(const DirectConv<T>& conv, const PoolGrid& pool, T* y, std::uint8_t* argmax)
      : conv_(conv), pool_(pool), bands_(conv.grid, kPatch, false, 2, 2), y_(y), argmax_(argmax) {}

  void operator()() const {
    const int threads = num_threads();
    const Index elements = bands_.patch_elements();
    const Workspace scratch = workspace_of<T>(threads * elements);
    parallel_for(bands_.count(), threads, [&](Index task, int thread) {
      const Band band = bands_[task];
      const T* patch = bands_.gather(conv_.input, band, scratch.as<T>() + thread * elements);
      if (conv_.C == 1) {
        run_band<1>(band, patch);
      } else {
        run_band<3>(band, patch);
      }
    });
  }

 private:
  static constexpr Index kPatch = 2048;  // elements: of x, in L1 beside a block's weights

  template <int C>
  void run_band(const Band& band, const T* patch) const {
    const Blocks<T> blocks(pool_.K);
    for (Index b = 0; b < blocks.count; ++b) {
      const Range block = blocks.block(b);
      with_vectors(static_cast<int>(block.end - block.begin),
                   [&]<int NV>() { run_block<C, NV>(band, patch, block.begin * kLanes<T>); });
    }
  }

  // Windows side by side whose sums hide the latency of FMA, and which the registers hold.
  template <int NV>
  static constexpr int kWindows = STAPES_VECTOR_BYTES == 64 && NV <= 2 ? 2 : 1;

  template <int C, int NV>
  [[gnu::noinline]] void run_block(const Band& band, const T* patch, Index k0) const {
    const Index row = bands_.output_row(), cols = band.cols / 2;
    const T *w = conv_.panels + k0 * conv_.depth(), *bias = conv_.bias + k0;
    for (Index i = 0; i < band.rows / 2; ++i) {
      const Index first = (band.n * pool_.rows() + band.p / 2 + i) * pool_.cols() + band.q / 2;
      const T* x = patch + 2 * i * row;
      Index j = 0;
      for (; j + kWindows<NV> <= cols; j += kWindows<NV>) {
        pool_windows<C, NV, kWindows<NV>>(x + 2 * C * j, row, w, bias, first + j, k0);
      }
      for (; j < cols; ++j) pool_windows<C, NV, 1>(x + 2 * C * j, row, w, bias, first + j, k0);
    }
  }

  // `kCount` windows side by side, for NV vectors from the k0-th k on.
  template <int C, int NV, int kCount>
  [[gnu::always_inline]] void pool_windows(const T* x, Index row, const T* w, const T* bias, Index first,
                                           Index k0) const {
    const Index K = pool_.K;
    const T* rows[4] = {x, x + row, x + 2 * row, x + 3 * row};
    // Else the address of each weight and pixel would be computed beforehand, and kept on the stack.
    asm("" : "+r"(w), "+r"(rows[0]), "+r"(rows[1]), "+r"(rows[2]), "+r"(rows[3]));
    TileOutputs<T> out[kCount][NV];
    sum_windows<C, NV, kCount>(rows, w, bias, out);
#pragma GCC unroll 2
    for (int i = 0; i < kCount; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        const Index k = k0 + v * kLanes<T>, to = (first + i) * K + k;
        pool_tile(out[i][v], least(kLanes<T>, K - k), y_ + to, argmax_ + to);
      }
  }

  template <int C, int NV, int kCount>
  [[gnu::always_inline]] static void sum_windows(const T* const* rows, const T* w, const T* bias,
                                                 TileOutputs<T> (&out)[kCount][NV]) {
    constexpr int kPixels = 2 * kCount;  // of a row
    Vec<T> acc[2][kPixels][NV];
#pragma GCC unroll 8
    for (int m = 0; m < 2 * kPixels; ++m)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[m / kPixels][m % kPixels][v] = load(bias + v * kLanes<T>);
#pragma GCC unroll 3
    for (int r = 0; r < 3; ++r) {
#pragma GCC unroll 9
      for (int l = 0; l < 3 * C; ++l) {
        const T* weights = w + (r * 3 * C + l) * NV * kLanes<T>;
        Vec<T> b[NV];
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) b[v] = load(weights + v * kLanes<T>);
#pragma GCC unroll 8
        for (int m = 0; m < 2 * kPixels; ++m) {
          const Vec<T> a = splat_anew(rows[r + m / kPixels] + m % kPixels * C + l);
#pragma GCC unroll 4
          for (int v = 0; v < NV; ++v) {
            acc[m / kPixels][m % kPixels][v] += a * b[v];
            compute_here<T>(acc[m / kPixels][m % kPixels][v]);
          }
        }
      }
    }
#pragma GCC unroll 2
    for (int i = 0; i < kCount; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        out[i][v] = {{{acc[0][2 * i][v], acc[0][2 * i + 1][v]}, {acc[1][2 * i][v], acc[1][2 * i + 1][v]}}};
      }
  }

  const DirectConv<T>& conv_;
  PoolGrid pool_;
  Bands bands_;
  T* y_;
  std::uint8_t* argmax_;
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
