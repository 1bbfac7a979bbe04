// 3x3 convolutions with stride 1 by Winograd's F(2x2, 3x3): 16 products for a tile of 2 x 2 outputs instead of 36
//   y = A' [(G w G') * (B' x B)] A
// x (N,H,W,C) with C whole vectors, w (K,3,3,C); any padding.
// Work: for a band of outputs (band.hpp), some tiles at a time: their 4 x 4 patches are transformed, each of the
// 16 places is a matrix product over C (tile.hpp), and an epilogue gets the 2 x 2 outputs of each tile and vector of k
// in registers. Weights are transformed and packed once, as panels (place, block of k, C, block).
// Numerics: sums in T; the error is about twice that of the direct sum. A number that is not finite spreads over its
// tile. The order depends on the shape alone.
// Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2015 (arXiv:1509.09308).
#pragma once

#include "cpu/conv2d.hpp"
#include "cpu/pool_tile.hpp"
#include "cpu/winograd_tile.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

// Where the weight from channel c to channel k through tap t (0 to 8, by row) is: first + k * k_step + c * c_step +
// t * t_step.
template <class T>
struct WinogradWeights {
  const T* first;
  Index k_step, c_step, t_step;
};

// b may be null, and has `count` elements.
template <class T>
[[gnu::always_inline]] inline TileOutputs<T> with_bias(const TileOutputs<T>& tile, const T* b, Index count) {
  if (b == nullptr) return tile;
  const Vec<T> bias = count == kLanes<T> ? load(b) : load_part(b, static_cast<int>(count));
  return {{{tile.y[0][0] + bias, tile.y[0][1] + bias}, {tile.y[1][0] + bias, tile.y[1][1] + bias}}};
}

template <class T>
class Winograd {
 public:
  // C: channels that are read.
  static bool can(const Conv2dShape& s, Index C) { return is_3x3(s) && C % kLanes<T> == 0; }

  Winograd(const T* x, const Grid& grid, Index K, const WinogradWeights<T>& w)
      : x_(x),
        grid_(grid),
        K_(K),
        blocks_(K),
        bands_(grid_, kPatch, true, 2, 2),
        tiles_(whole_tiles(kBlock / (kPlaces * (grid.C + blocks_.padded())))),
        packed_(workspace_of<T>(kPlaces * blocks_.padded() * grid.C)) {
    pack(w);
  }

  // The forward convolution of x (N,H,W,C) with w (K,3,3,C).
  static Winograd forward(const T* x, const T* w, const Conv2dShape& s) {
    return {x, forward_grid(s), s.K, {w, 9 * s.C, 1, s.C}};
  }

  // y (N,P,Q,K) = relu(outputs + b), relu and b where asked for.
  void write(const T* b, bool relu, T* y) const {
    if (grid_.N == 0 || grid_.P == 0 || grid_.Q == 0) return;
    run([&](const Band& band, Index i, Index j, Index k, const TileOutputs<T>& tile, Index count) {
      T* to = y + ((band.n * grid_.P + band.p + 2 * i) * grid_.Q + band.q + 2 * j) * K_ + k;
      write_tile(with_bias(tile, b == nullptr ? b : b + k, count), relu, to, least(2, band.rows - 2 * i),
                 least(2, band.cols - 2 * j), count);
    });
  }

  // epilogue(band, i, j, k, outputs, count): those of tile (i, j) of each band, for the `count` k from the k-th on.
  // Where there are fewer bands than threads, these share a band's k, which changes no sum.
  template <class F>
  void run(const F& epilogue) const {
    const int threads = num_threads();
    const Index bands = bands_.count();
    const Index splits = bands < threads ? least(ceil_div(threads, bands), blocks_.count) : 1;
    const Workspace scratch = workspace_of<T>(threads * scratch_elements());
    parallel_for(bands * splits, threads, [&](Index task, int thread) {
      run_band(bands_[task / splits], part(blocks_.count, splits, task % splits),
               scratch.template as<T>() + thread * scratch_elements(), epilogue);
    });
  }

 private:
  // The patch, and the transforms of a block of tiles before and after the products.
  Index scratch_elements() const { return patch_elements() + kPlaces * tiles_ * (grid_.C + blocks_.padded()); }

  template <class F>
  void run_band(const Band& band, Range blocks, T* scratch, const F& epilogue) const {
    const T* patch = bands_.gather(x_, band, scratch);
    const Index row = bands_.output_row(), pixel = bands_.output_pixel();
    T* before = scratch + patch_elements();
    T* after = before + kPlaces * tiles_ * grid_.C;
    const Index across = ceil_div(band.cols, 2), count = ceil_div(band.rows, 2) * across;
    const Index k_begin = blocks_.block(blocks.begin).begin * kLanes<T>,
                k_end = least(blocks_.block(blocks.end - 1).end * kLanes<T>, K_);
    for (Index first = 0; first < count; first += tiles_) {
      const Index n = least(tiles_, count - first);
      for (Index t = 0; t < n; ++t) {
        const Index i = (first + t) / across, j = (first + t) % across;
        transform_patch(patch + 2 * i * row + 2 * j * pixel, row, pixel, grid_.C, before + t * grid_.C,
                        tiles_ * grid_.C);
      }
      multiply(before, n, blocks, after);
      for (Index t = 0; t < n; ++t) {
        const Index i = (first + t) / across, j = (first + t) % across;
        for (Index k = k_begin; k < k_end; k += kLanes<T>) {
          epilogue(band, i, j, k, outputs(after + t * blocks_.padded() + k), least(kLanes<T>, K_ - k));
        }
      }
    }
  }

  static constexpr Index kMostTiles = 48;
  static constexpr Index kBlock = 48 * 1024;  // elements: of what lies before and after the products, in L2
  static constexpr Index kPatch = 20 * 1024;  // elements

  [[gnu::always_inline]] void write_tile(const TileOutputs<T>& tile, bool relu, T* y, Index rows, Index cols,
                                         Index count) const {
    for (Index a = 0; a < rows; ++a)
      for (Index b = 0; b < cols; ++b) {
        Vec<T> v = tile.y[a][b];
        if (relu) v = v < Vec<T>{} ? Vec<T>{} : v;
        T* to = y + (a * grid_.Q + b) * K_;
        if (count == kLanes<T>) {
          store(to, v);
        } else {
          store_part(to, v, static_cast<int>(count));
        }
      }
  }

  Index whole_tiles(Index most) const {
    const Index rows = blocks_.rows();
    return clamp(most, rows, kMostTiles) / rows * rows;
  }

  // Where the number of columns is odd, the last tile reads a pixel past the patch, for outputs that are not there.
  Index patch_elements() const { return round_up(bands_.patch_elements() + grid_.C, kVectorSlack); }

  // A vector of k at a time: what it needs is put side by side first, since k may lie far apart.
  void pack(const WinogradWeights<T>& w) {
    const Index C = grid_.C, staged = 9 * C * kLanes<T>;
    const int threads = num_threads();
    const Workspace scratch = workspace_of<T>(threads * staged);
    parallel_for(blocks_.vectors, threads, [&](Index vector, int thread) {
      T* stage = scratch.as<T>() + thread * staged;
      const Index k = vector * kLanes<T>;
      gather_weights(w, k, stage);
      Index block = 0;
      while (blocks_.block(block).end <= vector) ++block;
      const Index k0 = blocks_.block(block).begin * kLanes<T>;
      const Index width = (blocks_.block(block).end - blocks_.block(block).begin) * kLanes<T>;
      T* to = packed_.template as<T>() + k0 * C + k - k0;
      for (Index c = 0; c < C; ++c, stage += kLanes<T>, to += width)
        transform_weights(stage, C * kLanes<T>, to, blocks_.padded() * C);
    });
  }

  // (t, c, k) of the weights to a vector of k from the k-th on; zeros for k that are not there.
  void gather_weights(const WinogradWeights<T>& w, Index k, T* to) const {
    const Index C = grid_.C, there = clamp(K_ - k, 0, kLanes<T>);
    if (there < kLanes<T>) {
      for (Index i = 0; i < 9 * C * kLanes<T>; ++i) to[i] = T(0);
    }
    for (Index t = 0; t < 9; ++t, to += C * kLanes<T>) {
      const T* from = w.first + k * w.k_step + t * w.t_step;
      if (w.k_step == 1) {
        for (Index c = 0; c < C; ++c)
          for (Index i = 0; i < there; ++i) to[c * kLanes<T> + i] = from[i + c * w.c_step];
      } else {
        for (Index i = 0; i < there; ++i)
          for (Index c = 0; c < C; ++c) to[c * kLanes<T> + i] = from[i * w.k_step + c * w.c_step];
      }
    }
  }

  // G w G', G = ((1 0 0) (1/2 1/2 1/2) (1/2 -1/2 1/2) (0 0 1)), for a vector of k; taps and places lie so far apart.
  static void transform_weights(const T* w, Index tap, T* to, Index place) {
    const T half = T(0.5);
    Vec<T> rows[4][3];
    for (Index s = 0; s < 3; ++s) {
      const Vec<T> a = load(w + s * tap), b = load(w + (3 + s) * tap), c = load(w + (6 + s) * tap);
      rows[0][s] = a;
      rows[1][s] = (a + b + c) * half;
      rows[2][s] = (a - b + c) * half;
      rows[3][s] = c;
    }
    for (Index i = 0; i < 4; ++i, to += 4 * place) {
      const Vec<T> a = rows[i][0], b = rows[i][1], c = rows[i][2];
      store(to, a);
      store(to + place, (a + b + c) * half);
      store(to + 2 * place, (a - b + c) * half);
      store(to + 3 * place, c);
    }
  }

  // after[place][t][k] = sum over c of before[place][t][c] * U[place][c][k]
  void multiply(const T* before, Index n, Range blocks, T* after) const {
    const Index C = grid_.C, padded = blocks_.padded();
    const Segment all{0, C};
    for (Index e = 0; e < kPlaces; ++e)
      for (Index b = blocks.begin; b < blocks.end; ++b) {
        const Range block = blocks_.block(b);
        const Index k0 = block.begin * kLanes<T>;
        const T* panel = packed_.template as<T>() + (e * padded + k0) * C;
        with_vectors(static_cast<int>(block.end - block.begin), [&]<int NV>() {
          multiply_block<NV>(before + e * tiles_ * C, n, all, panel, after + e * tiles_ * padded + k0);
        });
      }
  }

  template <int NV>
  void multiply_block(const T* from, Index n, const Segment& all, const T* panel, T* to) const {
    constexpr int MR = kTileRows<NV>;
    const Index padded = blocks_.padded();
    for (Index t = 0; t < n; t += MR) {
      const T* x[MR];
      T* y[MR];
      for (int m = 0; m < MR; ++m) {
        const Index row = least(t + m, n - 1);
        x[m] = from + row * all.length;
        y[m] = to + row * padded;
      }
      Tile<T, MR, NV> tile{};
      tile.add_dense(x, &all, 1, panel);
      tile.store_to(y, static_cast<int>(least(MR, n - t)), NV * kLanes<T>);
    }
  }

  // A' m A, A' = ((1 1 1 0) (0 1 -1 -1))
  [[gnu::always_inline]] TileOutputs<T> outputs(const T* after) const {
    const Index step = tiles_ * blocks_.padded();
    Vec<T> upper[4], lower[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const Vec<T> m0 = load(after + j * step), m1 = load(after + (4 + j) * step), m2 = load(after + (8 + j) * step),
                   m3 = load(after + (12 + j) * step);
      upper[j] = m0 + m1 + m2;
      lower[j] = m1 - m2 - m3;
    }
    return {{{upper[0] + upper[1] + upper[2], upper[1] - upper[2] - upper[3]},
             {lower[0] + lower[1] + lower[2], lower[1] - lower[2] - lower[3]}}};
  }

  const T* x_;
  Grid grid_;
  Index K_;
  Blocks<T> blocks_;
  Bands bands_;
  Index tiles_;  // of a block: a multiple of the rows of a register tile
  Workspace packed_;
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
