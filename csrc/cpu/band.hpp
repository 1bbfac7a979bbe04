// Bands: the piece of an image that a convolution kernel works on at a time, small enough for the
// cache, with its input copied into a zero-padded patch so that the kernels see no borders.
#pragma once

#include <cstring>

#include "cpu/parallel.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

using Index = std::int64_t;

// Where the outputs of a convolution read. Output (p, q) reads input pixels (p * stride_h + row, q * stride_w + col)
// for taps (row, col) in [first_row, last_row] x [first_col, last_col]; outside of H x W they are zero.
struct Grid {
  Index N, H, W, C;  // input
  Index P, Q;        // output positions
  Index stride_h, stride_w;
  Index first_row, last_row, first_col, last_col;
};

struct Band {
  Index n;
  Index p, rows;
  Index q, cols;
};

inline constexpr Index kVectorSlack = 64 / sizeof(float);  // a patch may be read this far past its end

// A fixed partition of N images of P x Q outputs into bands whose input, the patch, holds about `target` elements. Bands
// are multiples of (row_multiple, col_multiple) outputs, except at the end. Where no tap leaves the image, and the caller
// does not need `slack` behind it, a patch is the image itself; else it is a zero-padded copy.
class Bands {
 public:
  Bands(const Grid& grid, Index target, bool slack, Index row_multiple = 1, Index col_multiple = 1)
      : grid_(grid), in_place_(!slack && is_inside(grid)) {
    cols_ = grid.Q;
    if (patch_elements(row_multiple, cols_) > target) {
      const Index wide = target / (in_rows(row_multiple) * grid.C) - (grid.last_col - grid.first_col);
      cols_ = round_up(clamp((wide - 1) / grid.stride_w + 1, kFewestCols, grid.Q), col_multiple);
    }
    const Index high = target / (in_cols(cols_) * grid.C) - (grid.last_row - grid.first_row);
    rows_ = round_up(clamp((high - 1) / grid.stride_h + 1, 1, grid.P), row_multiple);
    across_ = ceil_div(grid.Q, cols_);
    down_ = ceil_div(grid.P, rows_);
  }

  Index count() const { return grid_.N * down_ * across_; }
  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  Index patch_elements() const { return in_place_ ? 0 : patch_elements(rows_, cols_) + kVectorSlack; }
  Index row_stride() const { return (in_place_ ? grid_.W : in_cols(cols_)) * grid_.C; }  // of a patch

  Band operator[](Index i) const {
    const Index j = i / across_, p = j % down_ * rows_, q = i % across_ * cols_;
    return {j / down_, p, least(rows_, grid_.P - p), q, least(cols_, grid_.Q - q)};
  }

  // The band's patch: the pixel of tap (first_row, first_col) for its first output. `scratch` holds patch_elements().
  template <class T>
  const T* gather(const T* x, const Band& band, T* scratch) const {
    const Grid& g = grid_;
    const Index row0 = band.p * g.stride_h + g.first_row, col0 = band.q * g.stride_w + g.first_col;
    const T* image = x + band.n * g.H * g.W * g.C;
    if (in_place_) return image + (row0 * g.W + col0) * g.C;
    const Index rows = in_rows(band.rows), cols = in_cols(band.cols), stride = row_stride();
    const Index left = clamp(-col0, 0, cols), right = clamp(col0 + cols - g.W, 0, cols - left);
    for (Index i = 0; i < rows; ++i) {
      T* to = scratch + i * stride;
      const Index h = row0 + i;
      if (h < 0 || h >= g.H || left + right >= cols) {
        fill_zero(to, cols * g.C);
        continue;
      }
      fill_zero(to, left * g.C);
      std::memcpy(to + left * g.C, image + (h * g.W + col0 + left) * g.C,
                  static_cast<std::size_t>((cols - left - right) * g.C) * sizeof(T));
      fill_zero(to + (cols - right) * g.C, right * g.C);
    }
    fill_zero(scratch + rows * stride, kVectorSlack);
    return scratch;
  }

 private:
  static constexpr Index kFewestCols = 24;

  static bool is_inside(const Grid& g) {
    return g.first_row >= 0 && g.first_col >= 0 && (g.P - 1) * g.stride_h + g.last_row < g.H &&
           (g.Q - 1) * g.stride_w + g.last_col < g.W;
  }
  static Index least(Index a, Index b) { return a < b ? a : b; }
  static Index clamp(Index x, Index low, Index high) { return x > high ? high : x < low ? low : x; }
  static Index round_up(Index x, Index multiple) { return ceil_div(x, multiple) * multiple; }
  template <class T>
  static void fill_zero(T* p, Index n) {
    std::memset(static_cast<void*>(p), 0, static_cast<std::size_t>(n) * sizeof(T));
  }

  Index in_rows(Index rows) const { return (rows - 1) * grid_.stride_h + grid_.last_row - grid_.first_row + 1; }
  Index in_cols(Index cols) const { return (cols - 1) * grid_.stride_w + grid_.last_col - grid_.first_col + 1; }
  Index patch_elements(Index rows, Index cols) const { return in_rows(rows) * in_cols(cols) * grid_.C; }

  Grid grid_;
  bool in_place_;
  Index rows_ = 1, cols_ = 1, down_ = 1, across_ = 1;
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
