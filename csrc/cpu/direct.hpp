// The direct convolution core. Forward, data gradient and Linear are all of this form:
//
//   y[p,q,k] = bias[k] + sum over taps t, channels c of x[p * stride_h + row(t), q * stride_w + col(t), c] * w[t,c,k]
//
// Work: for each band of outputs (band.hpp), for each block of K (1 to 4 vectors), for each tile of pixels
// (tile.hpp), over all taps and channels in one go with the sums in registers. Weights come packed in panels: a
// block's K innermost, in the order in which its taps are walked, so that the inner loop reads them straight on.
// Neighbouring taps of one row are one run of memory in NHWC, so they are walked as one segment: a 3x3 kernel with
// one input channel is 3 segments of 3, not 9 of 1.
// Depthwise with few taps in a row: depthwise.hpp.
// Numerics: sums in T, one chain for each output, in the order of taps and channels, beginning with the bias.
#pragma once

#include "cpu/depthwise.hpp"
#include "cpu/tile.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

// K split into blocks of nearly equal numbers of vectors.
template <class T>
struct Blocks {
  static constexpr int kMost = kMaxTileVectors;
  Index vectors, count;

  explicit Blocks(Index K) : vectors(ceil_div(K, kLanes<T>)), count(ceil_div(vectors, kMost)) {}
  Index padded() const { return vectors * kLanes<T>; }
  Range block(Index i) const { return part(vectors, count, i); }
  int rows() const { return tile_rows(static_cast<int>(ceil_div(vectors, count))); }  // of the widest one's tiles
};

template <class T>
struct DirectConv {
  const T* input;
  Grid grid;
  Index groups, C, K;         // channels of a group, in and out
  Index tap_count;            // those of the grid, by row, then column; or 0: y is the bias
  bool depthwise = false;     // C = K = 1: vectors lie along the groups
  const T* panels = nullptr;  // see pack_panels; depthwise: (tap, channel)
  const T* bias = nullptr;    // padded as the panels are; zeros where there is none
  bool relu = false;
  const NormRelu<T>* norm = nullptr;  // what x becomes on the way, where given

  Index depth() const { return tap_count * C; }
};

// Runs of taps that are one piece of memory in a patch. Returns how many.
template <class T>
Index make_segments(const DirectConv<T>& conv, const Bands& bands, Segment* segments) {
  Index n = 0;
  for (Index t = 0; t < conv.tap_count; ++t) {
    const Index offset = bands.tap_offset(t);
    if (conv.groups == 1 && n > 0 && segments[n - 1].offset + segments[n - 1].length == offset) {
      segments[n - 1].length += conv.C;
    } else {
      segments[n++] = {offset, conv.C};
    }
  }
  return n;
}

template <class T>
struct Output {
  T* origin;  // of the band's first position
  Index row_stride, pixel_stride;
};

// Walks the pixels of a band in scan order, keeping where each is read and written.
template <class T>
class PixelWalk {
 public:
  PixelWalk(const Bands& bands, const T* patch, const Output<T>& out, Index cols)
      : x_(patch),
        y_(out.origin),
        cols_(cols),
        x_step_(bands.output_pixel()),
        y_step_(out.pixel_stride),
        x_row_(bands.output_row() - cols * x_step_),
        y_row_(out.row_stride - cols * y_step_) {}

  // The next `rows` pixels (the last one again when there are fewer) to x and y.
  template <int MR>
  void next(Index left, const T** x, T** y) {
    if (left >= MR && col_ + MR <= cols_) {  // most often: none of them waits for another
#pragma GCC unroll 8
      for (int m = 0; m < MR; ++m) {
        x[m] = x_ + m * x_step_;
        y[m] = y_ + m * y_step_;
      }
      step(MR);
      return;
    }
    for (int m = 0; m < MR; ++m) {
      x[m] = x_;
      y[m] = y_;
      if (m + 1 < left) step(1);
    }
  }

  Index x_step() const { return x_step_; }
  Index y_step() const { return y_step_; }

 private:
  void step(Index pixels) {
    x_ += pixels * x_step_;
    y_ += pixels * y_step_;
    col_ += pixels;
    if (col_ == cols_) {
      col_ = 0;
      x_ += x_row_;
      y_ += y_row_;
    }
  }

  const T* x_;
  T* y_;
  Index cols_, x_step_, y_step_, x_row_, y_row_, col_ = 0;
};

// One block of NV vectors of outputs (from channel `k0` of the group on) for all pixels of a band. Meanwhile the cache
// fetches where the next tile will be written, and `ahead` elements of each of its pixels.
template <class T, int NV>
void run_block(const DirectConv<T>& conv, PixelWalk<T> walk, Index pixels, const Segment* segments, Index count,
               const T* w, const T* bias, Index width, Index ahead) {
  constexpr int MR = kTileRows<NV>;
  constexpr Index kLine = 64 / sizeof(T);
  const Index w_stride = Blocks<T>(conv.groups).padded(), x_step = MR * walk.x_step(), y_step = MR * walk.y_step();
  for (Index left = pixels; left > 0; left -= MR) {
    const T* x[MR];
    T* y[MR];
    walk.template next<MR>(left, x, y);
    Tile<T, MR, NV> tile;
    tile.set(bias);
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) __builtin_prefetch(y[m] + y_step, 1);
    if (ahead > 0) {
      for (int m = 0; m < MR; ++m)
        for (Index i = 0; i < ahead; i += kLine) __builtin_prefetch(x[m] + x_step + i);
    }
    if (conv.depthwise) {
      tile.add_depthwise(x, segments, count, w, w_stride);
    } else {
      tile.add_dense(x, segments, count, w);
    }
    if (conv.relu) tile.relu();
    tile.store_to(y, static_cast<int>(least(left, MR)), width);
  }
}

// The taps as segments of a patch.
template <class T>
class Segments {
 public:
  Segments(const DirectConv<T>& conv, const Bands& bands)
      : memory_(workspace_of<Segment>(conv.tap_count)),
        count_(make_segments(conv, bands, memory_.template as<Segment>())) {}

  const Segment* begin() const { return memory_.template as<Segment>(); }
  Index count() const { return count_; }

 private:
  Workspace memory_;
  Index count_;
};

// All outputs of a band in blocks [units.begin, units.end); see unit_count.
template <class T>
void run_band(const DirectConv<T>& conv, const Bands& bands, const Band& band, const T* patch,
              const Segments<T>& segments, const Output<T>& out, Range units) {
  const Index K = conv.depthwise ? conv.groups : conv.K;
  const Blocks<T> blocks(K);
  const Index ahead = conv.tap_count == 1 && bands.in_place() ? conv.C : 0;  // else a patch is in the cache already
  for (Index u = units.begin; u < units.end; ++u) {
    const Index g = u / blocks.count;
    const Range block = blocks.block(u % blocks.count);
    const Index k0 = block.begin * kLanes<T>;
    const PixelWalk<T> walk(bands, patch + (conv.depthwise ? k0 : g * conv.C),
                            {out.origin + g * K + k0, out.row_stride, out.pixel_stride}, band.cols);
    const Index channel = g * blocks.padded() + k0;
    const T* w = conv.panels + (conv.depthwise ? k0 : channel * conv.depth());
    with_vectors(static_cast<int>(block.end - block.begin), [&]<int NV>() {
      run_block<T, NV>(conv, walk, band.rows * band.cols, segments.begin(), segments.count(), w, conv.bias + channel,
                       K - k0, u == units.begin ? ahead : 0);
    });
  }
}

// Blocks of outputs that can be computed apart from each other.
template <class T>
Index unit_count(const DirectConv<T>& conv) {
  return conv.depthwise ? Blocks<T>(conv.groups).count : conv.groups * Blocks<T>(conv.K).count;
}

inline constexpr Index kPatchTarget = 24 * 1024;  // elements: beside the weights in L2
inline constexpr Index kTasksWanted = 16;         // enough for several threads to share evenly

// Depthwise tiles read whole vectors of x, so a patch must not end inside one. What changes on the way is a copy.
template <class T>
bool needs_slack(const DirectConv<T>& conv) {
  return conv.norm != nullptr || (conv.depthwise && conv.groups % kLanes<T> != 0);
}

// f(reader) with how the convolution reads its input.
template <class T, class F>
void with_reader(const NormRelu<T>* norm, const F& f) {
  if (norm != nullptr) return f(*norm);
  f(AsItLies<T>{});
}

inline bool is_empty(const Grid& g) { return g.N == 0 || g.P == 0 || g.Q == 0; }

// Depthwise with few taps in a row has its own kernel.
template <class T>
bool by_rows(const DirectConv<T>& conv) {
  return conv.depthwise && conv.tap_count > 0 && Depthwise<T>::can(conv.grid);
}

// How the work of run_direct is cut: bands, each split by its channels where there are few of them.
template <class T>
struct DirectTasks {
  Bands bands;
  Index splits;

  explicit DirectTasks(const DirectConv<T>& conv)
      : bands(conv.grid, kPatchTarget, needs_slack(conv)),
        splits(least(unit_count(conv), ceil_div(kTasksWanted, bands.count()))) {}
};

// Into how many pieces run_direct cuts the outputs, for its `behind`; 0 where it cuts by channels as well, or has none.
template <class T>
Index piece_count(const DirectConv<T>& conv) {
  if (is_empty(conv.grid)) return 0;
  if (by_rows(conv)) return Depthwise<T>(conv.grid).pieces();
  const DirectTasks<T> tasks(conv);
  return tasks.splits == 1 ? tasks.bands.count() : 0;
}

// y over the whole grid; position (n, p, q) is written at y + n * image_stride + p * row_stride + q * pixel_stride.
// behind(piece, thread, outputs, pixels) is called behind every row of a piece, in order, while it is in the cache; see
// piece_count.
template <class T, class F>
void run_direct(const DirectConv<T>& conv, const Output<T>& y, Index image_stride, int threads, const F& behind) {
  if (is_empty(conv.grid)) return;
  if (by_rows(conv)) {
    return with_reader(conv.norm, [&](const auto& reader) {
      Depthwise<T>(conv.grid).forward(conv.input, conv.panels, conv.bias, conv.relu, y.origin, image_stride,
                                      y.row_stride, y.pixel_stride, threads, reader, behind);
    });
  }
  const DirectTasks<T> tasks(conv);
  const Bands& bands = tasks.bands;
  const Segments<T> segments(conv, bands);
  const Index patch_elements = bands.patch_elements(), splits = tasks.splits;
  const Workspace scratch = workspace_of<T>(threads * patch_elements);
  parallel_for(bands.count() * splits, threads, [&](Index task, int thread) {
    const Band band = bands[task / splits];
    const T* patch = nullptr;
    with_reader(conv.norm, [&](const auto& reader) {
      patch = bands.gather(conv.input, band, scratch.as<T>() + thread * patch_elements, reader);
    });
    const Output<T> out{y.origin + band.n * image_stride + band.p * y.row_stride + band.q * y.pixel_stride,
                        y.row_stride, y.pixel_stride};
    run_band(conv, bands, band, patch, segments, out, part(unit_count(conv), splits, task % splits));
    if (splits > 1) return;
    for (Index row = 0; row < band.rows; ++row) behind(task, thread, out.origin + row * out.row_stride, band.cols);
  });
}

template <class T>
void run_direct(const DirectConv<T>& conv, const Output<T>& y, Index image_stride) {
  run_direct(conv, y, image_stride, num_threads(), [](Index, int, const T*, Index) {});
}

}  // namespace stapes::cpu::STAPES_ISA_NAME
