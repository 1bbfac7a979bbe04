// The weight gradient of 3x3 convolutions with stride 1 by Winograd's F(3x3, 2x2), the transpose of F(2x2, 3x3):
//   dw = G' [sum over tiles of (A dy A') * (B' x B)] G
// x (N,H,W,C) with C whole vectors, dy (N,P,Q,K), dw (K,3,3,C); any padding.
// Work: the 2 x 2 tiles of dy and their 4 x 4 patches of x are transformed, many at a time; at each of the 16 places
// their outer products are added to sums (K, C) by outer.hpp. Bands are cut into chunks, a number fixed
// by the shape, with sums of their own. Where there are more threads than chunks, these share a chunk's k.
// Numerics: sums in T, a chunk's tiles in order, then the chunks in order. Overwrites. The error is about twice that of
// the direct sum. A number that is not finite spreads over its tile.
// Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2015 (arXiv:1509.09308).
#pragma once

#include "cpu/outer.hpp"
#include "cpu/winograd_tile.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

template <class T>
class WinogradWgrad {
 public:
  static bool can(const Conv2dShape& s) { return is_3x3(s) && s.C % kLanes<T> == 0; }

  WinogradWgrad(const T* x, const T* dy, const Conv2dShape& s)
      : x_(x),
        dy_(dy),
        grid_(forward_grid(s)),
        K_(s.K),
        bands_(grid_, kPatch, true, 2, 2),
        products_{s.C, scratch_row<T>(s.C), scratch_row<T>(s.K), s.C} {}

  void run(T* dw) const {
    const Index chunks = clamp(kMostSums / sums_elements(), 1, least(bands_.count(), kTasksWanted));
    const int threads = num_threads();
    const Index splits = products_.splits(threads, chunks, K_);
    const Workspace sums = workspace_of<T>(chunks * sums_elements()),
                    scratch = workspace_of<T>(threads * scratch_elements());
    parallel_for(chunks * splits, threads, [&](Index task, int thread) {
      const Index chunk = task / splits;
      add_chunk(part(bands_.count(), chunks, chunk), products_.share(K_, splits, task % splits),
                scratch.as<T>() + thread * scratch_elements(), sums.as<T>() + chunk * sums_elements());
    });
    parallel_for(K_, threads, [&](Index k) { finish(sums.as<T>() + k * grid_.C, chunks, dw + k * 9 * grid_.C); });
  }

 private:
  static constexpr Index kTiles = 48;          // transformed at a time
  static constexpr Index kPatch = 12 * 1024;   // elements
  static constexpr Index kMostSums = 1 << 19;  // elements, of all chunks

  Index sums_elements() const { return kPlaces * K_ * grid_.C; }
  // Where the number of columns is odd, the last tile reads a pixel past the patch.
  Index patch_elements() const { return round_up(bands_.patch_elements() + grid_.C, kVectorSlack); }
  // A share of k may begin within a vector, whose store then goes past the row.
  Index scratch_elements() const {
    return patch_elements() + kPlaces * kTiles * (products_.x_row + products_.y_row) + kVectorSlack;
  }

  // Adds the tiles of the bands, for k in `ks`.
  void add_chunk(Range of_bands, Range ks, T* scratch, T* sums) const {
    T *x = scratch + patch_elements(), *dy = x + kPlaces * kTiles * products_.x_row;
    for (Index e = 0; e < kPlaces; ++e) {
      std::memset(static_cast<void*>(sums + (e * K_ + ks.begin) * grid_.C), 0,
                  static_cast<std::size_t>((ks.end - ks.begin) * grid_.C) * sizeof(T));
    }
    const Index row = bands_.output_row(), pixel = bands_.output_pixel();
    Index filled = 0;
    for (Index b = of_bands.begin; b < of_bands.end; ++b) {
      const Band band = bands_[b];
      if (band.rows % 2 != 0 || band.cols % 2 != 0) {  // the last tiles read behind what is gathered
        std::memset(static_cast<void*>(scratch), 0, static_cast<std::size_t>(patch_elements()) * sizeof(T));
      }
      const T* patch = bands_.gather(x_, band, scratch);
      for (Index i = 0; i < band.rows; i += 2)
        for (Index j = 0; j < band.cols; j += 2) {
          transform_patch(patch + i * row + j * pixel, row, pixel, grid_.C, x + filled * products_.x_row,
                          kTiles * products_.x_row);
          transform_dy(band, i, j, ks, dy + filled * products_.y_row);
          if (++filled == kTiles) {
            add_tiles(x, dy, filled, ks, sums);
            filled = 0;
          }
        }
    }
    if (filled > 0) add_tiles(x, dy, filled, ks, sums);
  }

  // A dy A', A' = ((1 1 1 0) (0 1 -1 -1)), of the tile at (i, j) of the band; zeros behind its end.
  void transform_dy(const Band& band, Index i, Index j, Range ks, T* to) const {
    const T* from = dy_ + ((band.n * grid_.P + band.p + i) * grid_.Q + band.q + j) * K_;
    const bool below = i + 1 < band.rows, right = j + 1 < band.cols;
    const Index step = kTiles * products_.y_row;
    for (Index k = ks.begin; k < ks.end; k += kLanes<T>) {
      const auto get = [&](bool there, Index offset) {
        if (!there) return Vec<T>{};
        const Index left = ks.end - k;
        return left >= kLanes<T> ? load(from + offset + k) : load_part(from + offset + k, static_cast<int>(left));
      };
      const Vec<T> g[2][2] = {{get(true, 0), get(right, K_)},
                              {get(below, grid_.Q * K_), get(below && right, (grid_.Q + 1) * K_)}};
      const Vec<T> rows[4][2] = {{g[0][0], g[0][1]},
                                 {g[0][0] + g[1][0], g[0][1] + g[1][1]},
                                 {g[0][0] - g[1][0], g[0][1] - g[1][1]},
                                 {-g[1][0], -g[1][1]}};
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        store(to + (4 * r) * step + k, rows[r][0]);
        store(to + (4 * r + 1) * step + k, rows[r][0] + rows[r][1]);
        store(to + (4 * r + 2) * step + k, rows[r][0] - rows[r][1]);
        store(to + (4 * r + 3) * step + k, -rows[r][1]);
      }
    }
  }

  // sums[place][k][c] += sum over tiles of dy[place][tile][k] * x[place][tile][c]
  void add_tiles(const T* x, const T* dy, Index tiles, Range ks, T* sums) const {
    for (Index e = 0; e < kPlaces; ++e) {
      products_.add(x + e * kTiles * products_.x_row, dy + e * kTiles * products_.y_row, tiles, ks,
                    sums + e * K_ * grid_.C, [] {});
    }
  }

  // G' m G, G' = ((1 1/2 1/2 0) (0 1/2 -1/2 0) (0 1/2 1/2 1)), of one k; m summed over chunks.
  void finish(const T* sums, Index chunks, T* dw) const {
    const Index C = grid_.C;
    for (Index c = 0; c < C; c += kLanes<T>) {
      Vec<T> rows[3][4];
      for (int j = 0; j < 4; ++j) {
        Vec<T> m[4];
        for (int i = 0; i < 4; ++i) {
          const T* from = sums + (4 * i + j) * K_ * C + c;
          m[i] = load(from);
          for (Index s = 1; s < chunks; ++s) m[i] += load(from + s * sums_elements());
        }
        gather_taps(m, &rows[0][j], 4);
      }
      for (int r = 0; r < 3; ++r) {
        Vec<T> taps[3];
        gather_taps(rows[r], taps, 1);
        for (int s = 0; s < 3; ++s) store(dw + (3 * r + s) * C + c, taps[s]);
      }
    }
  }

  [[gnu::always_inline]] static void gather_taps(const Vec<T>* m, Vec<T>* to, int step) {
    const T half = T(0.5);
    to[0] = m[0] + half * (m[1] + m[2]);
    to[step] = half * (m[1] - m[2]);
    to[2 * step] = half * (m[1] + m[2]) + m[3];
  }

  const T *x_, *dy_;
  Grid grid_;
  Index K_;
  Bands bands_;
  OuterProducts<T> products_;
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
