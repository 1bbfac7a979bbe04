// Bands: the piece of an image that a convolution kernel works on at a time, small enough for the
// cache, with its input copied into a zero-padded patch so that the kernels see no borders.
#pragma once

#include <cstring>

#include "cpu/norm_relu.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

// The taps of a kernel along one axis, counted from the output's own position in the input.
struct TapAxis {
  Index first, step, count;
  Index last() const { return first + (count - 1) * step; }
};

// Where the outputs of a convolution read. Output (p, q) reads input pixels (p * stride_h + row, q * stride_w + col)
// for the taps (row, col) of rows x cols; outside of H x W they are zero.
struct Grid {
  Index N, H, W, C;  // input
  Index P, Q;        // output positions
  Index stride_h, stride_w;
  TapAxis rows, cols;
};

struct Band {
  Index n;
  Index p, rows;
  Index q, cols;
};

inline constexpr Index kVectorSlack = 64 / sizeof(float);  // a patch may be read this far past its end

// One axis of a patch that serves bands of `n` outputs. It is the input as it lies, unless most of that would go
// unread: outputs far apart (a large stride) have just their taps, one output's behind the other's; and where taps are
// further apart than the band is long (a large dilation), each has just what the band reads through it. So a patch does
// not grow with stride and dilation.
struct PatchAxis {
  Index size, outputs, stride;  // of input and output
  TapAxis taps;
  Index n = 1;

  bool is_inside() const { return taps.first >= 0 && (outputs - 1) * stride + taps.last() < size; }

  Index block(Index m) const { return (m - 1) * stride + 1; }  // what m outputs read through one tap
  bool by_output() const { return stride > 4 * ((taps.count - 1) * taps.step + 1); }
  bool by_tap() const { return !by_output() && taps.step > block(n); }
  bool as_it_lies() const { return !by_output() && !by_tap(); }

  Index tap_step() const { return by_output() ? 1 : least(taps.step, block(n)); }
  Index output_step() const { return by_output() ? taps.count : stride; }
  Index length(Index m) const {  // with m <= n outputs in use
    return by_output() ? m * taps.count : (taps.count - 1) * tap_step() + block(m);
  }
  // Which input the i-th of the patch is, from the band's first on.
  Index source(Index i) const {
    if (by_output()) return i / taps.count * stride + i % taps.count * taps.step;
    return by_tap() ? i / block(n) * taps.step + i % block(n) : i;
  }

  // The most outputs whose patch is at most `room` long.
  Index fitting(Index room) const {
    if (by_output()) return room / taps.count;
    const Index apart = room / taps.count, together = room - (taps.count - 1) * taps.step;
    const Index longest = apart > together ? apart : together;
    return longest < 1 ? 0 : (longest - 1) / stride + 1;
  }
};

// A fixed partition of N images of P x Q outputs into bands whose input, the patch, holds about `target` elements.
// Bands are multiples of (row_multiple, col_multiple) outputs, except at the end. Where no tap leaves the image, and
// the caller does not need `slack` behind it, a patch is the image itself; else it is a zero-padded copy.
class Bands {
 public:
  Bands(const Grid& g, Index target, bool slack, Index row_multiple = 1, Index col_multiple = 1)
      : grid_(g),
        rows_{g.H, g.P, g.stride_h, g.rows},
        cols_{g.W, g.Q, g.stride_w, g.cols},
        in_place_(!slack && rows_.is_inside() && cols_.is_inside()) {
    rows_.n = row_multiple;
    cols_.n = g.Q;
    if (size_of_patch() > target) {
      const Index fewest = least(clamp(kFewestInputs / g.stride_w, 1, kFewestCols), g.Q);
      cols_.n = round_up(clamp(cols_.fitting(target / (rows_.length(rows_.n) * g.C)), fewest, g.Q), col_multiple);
    }
    rows_.n = round_up(clamp(rows_.fitting(target / (cols_.length(cols_.n) * g.C)), 1, g.P), row_multiple);
    across_ = ceil_div(g.Q, cols_.n);
    down_ = ceil_div(g.P, rows_.n);
  }

  Index count() const { return grid_.N * down_ * across_; }
  bool in_place() const { return in_place_; }
  Index rows() const { return rows_.n; }
  Index cols() const { return cols_.n; }

  Band operator[](Index i) const {
    const Index j = i / across_, p = j % down_ * rows_.n, q = i % across_ * cols_.n;
    return {j / down_, p, least(rows_.n, grid_.P - p), q, least(cols_.n, grid_.Q - q)};
  }

  // In a patch: its elements, and the steps between rows of pixels, rows of outputs, and outputs of a row.
  Index patch_elements() const { return in_place_ ? 0 : size_of_patch() + kVectorSlack; }
  Index row_stride() const { return (in_place_ ? grid_.W : cols_.length(cols_.n)) * grid_.C; }
  Index output_row() const { return (in_place_ ? grid_.stride_h : rows_.output_step()) * row_stride(); }
  Index output_pixel() const { return (in_place_ ? grid_.stride_w : cols_.output_step()) * grid_.C; }

  // Where an output reads through the t-th tap (by row, then column), from where it reads through the first.
  Index tap_offset(Index t) const {
    const Index row = t / grid_.cols.count * (in_place_ ? grid_.rows.step : rows_.tap_step());
    const Index col = t % grid_.cols.count * (in_place_ ? grid_.cols.step : cols_.tap_step());
    return row * row_stride() + col * grid_.C;
  }

  // The band's patch: the pixel of the first tap for its first output. `scratch` holds patch_elements(). A reader that
  // changes what it copies (norm_relu.hpp) needs `slack`.
  template <class T, class Reader = AsItLies<T>>
  const T* gather(const T* x, const Band& band, T* scratch, const Reader& reader = {}) const {
    const Grid& g = grid_;
    const Index row0 = band.p * g.stride_h + g.rows.first, col0 = band.q * g.stride_w + g.cols.first;
    const T* image = x + band.n * g.H * g.W * g.C;
    if (in_place_) return image + (row0 * g.W + col0) * g.C;
    const Index rows = rows_.length(band.rows), cols = cols_.length(band.cols);
    for (Index i = 0; i < rows; ++i) {
      T* to = scratch + i * row_stride();
      const Index h = row0 + rows_.source(i);
      if (h < 0 || h >= g.H) {
        fill_zero(to, cols * g.C);
      } else if (cols_.as_it_lies()) {
        gather_run(image + h * g.W * g.C, col0, cols, to, reader);
      } else {
        for (Index j = 0; j < cols; ++j)
          gather_run(image + h * g.W * g.C, col0 + cols_.source(j), 1, to + j * g.C, reader);
      }
    }
    return scratch;
  }

 private:
  static constexpr Index kFewestCols = 24, kFewestInputs = 8 * kFewestCols;

  template <class T>
  static void fill_zero(T* p, Index n) {
    std::memset(static_cast<void*>(p), 0, static_cast<std::size_t>(n) * sizeof(T));
  }

  // Pixels [col, col + cols) of a row of the image, zeros outside of it.
  template <class T, class Reader>
  void gather_run(const T* row, Index col, Index cols, T* to, const Reader& reader) const {
    const Index C = grid_.C, left = clamp(-col, 0, cols), right = clamp(col + cols - grid_.W, 0, cols - left);
    fill_zero(to, left * C);
    if (left + right < cols) reader.copy(row + (col + left) * C, cols - left - right, C, to + left * C);
    fill_zero(to + (cols - right) * C, right * C);
  }

  Index size_of_patch() const { return rows_.length(rows_.n) * cols_.length(cols_.n) * grid_.C; }

  Grid grid_;
  PatchAxis rows_, cols_;
  bool in_place_;
  Index down_ = 1, across_ = 1;
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
