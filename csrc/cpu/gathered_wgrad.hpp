// The weight gradient of a dense convolution, or of Linear, over many pixels: dw (K, L) = sum over the outputs' pixels
// of dy (K) x what the pixel's taps read of x (L = R*S*C)
// Work: for some outputs at a time, their dy and what their taps read are copied to rows that lie together, which reads
// memory in order, and passes a reader (norm_relu.hpp) for x; the rows' outer products are added to sums in memory
// (outer.hpp), while the next dy, and for 1x1 the next pixels, are fetched. The outputs are cut into chunks, a number
// fixed by the shape, with sums of their own; where there are more threads than chunks, these share a chunk's k.
// Numerics: sums in T, a chunk's outputs in order, then the chunks in order. Overwrites.
#pragma once

#include "cpu/outer.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

// Copies n elements, whole vectors and what is left; the rest of the last vector becomes zeros.
template <class T>
[[gnu::always_inline]] inline void copy_vectors(const T* from, Index n, T* to) {
  const Index whole = n / kLanes<T> * kLanes<T>;
  for (Index i = 0; i < whole; i += kLanes<T>) store(to + i, load(from + i));
  if (whole < n) store(to + whole, load_part(from + whole, static_cast<int>(n - whole)));
}

// Pixels that lie together; what is left of the last vector becomes zeros.
template <class T, class Reader>
[[gnu::always_inline]] inline void read_row(const T* from, Index pixels, Index C, T* to, const Reader& reader) {
  if constexpr (std::is_same_v<Reader, AsItLies<T>>) {
    copy_vectors(from, pixels * C, to);
  } else {
    reader.copy(from, pixels, C, to);
    for (Index i = pixels * C; i % kLanes<T> != 0; ++i) to[i] = T(0);
  }
}

// What the taps of an output read, as a row: (R, S, C), zeros where they leave the image. A vector more may be written.
template <class T>
struct TapReader {
  Grid grid;

  template <class Reader>
  void read(const T* x, Index output, T* to, const Reader& reader) const {
    const Grid& g = grid;
    const Index image = output / (g.P * g.Q), pixel = output % (g.P * g.Q);
    const Index h0 = pixel / g.Q * g.stride_h + g.rows.first, w0 = pixel % g.Q * g.stride_w + g.cols.first;
    const bool together = g.cols.step == 1 && w0 >= 0 && w0 + g.cols.count <= g.W;
    x += image * g.H * g.W * g.C;
    for (Index r = 0; r < g.rows.count; ++r, to += g.cols.count * g.C) {
      const Index h = h0 + r * g.rows.step;
      if (h < 0 || h >= g.H) {
        std::memset(static_cast<void*>(to), 0, static_cast<std::size_t>(g.cols.count * g.C) * sizeof(T));
      } else if (together) {
        read_row(x + (h * g.W + w0) * g.C, g.cols.count, g.C, to, reader);
      } else {
        read_apart(x + h * g.W * g.C, w0, to, reader);
      }
    }
  }

 private:
  template <class Reader>
  void read_apart(const T* row, Index w0, T* to, const Reader& reader) const {
    const Grid& g = grid;
    for (Index s = 0; s < g.cols.count; ++s, to += g.C) {
      const Index w = w0 + s * g.cols.step;
      if (w < 0 || w >= g.W) {
        std::memset(static_cast<void*>(to), 0, static_cast<std::size_t>(g.C) * sizeof(T));
      } else {
        read_row(row + w * g.C, 1, g.C, to, reader);
      }
    }
  }
};

// The outputs' gradients, as they lie. Others (norm_gradient.hpp) make them when they are asked for.
template <class T>
struct GivenGradient {
  const T* dy;
  Index K;

  // Those of outputs [first, first + count), (count, K); `scratch` holds as many.
  const T* take(Index first, Index, T*) const { return dy + first * K; }
  // What fetches those of `take`, a piece at each of `calls` calls.
  Prefetch fetch(Index first, Index count, Index calls) const { return Prefetch(dy + first * K, count * K, calls); }
};

template <class T>
class GatheredWgrad {
 public:
  // `s` as flatten_pointwise makes it. The sums of a chunk must fit.
  static bool can(const Conv2dShape& s) { return s.groups == 1 && s.K * taps(s) * s.C <= kMostSums; }

  GatheredWgrad(const T* x, const Conv2dShape& s)
      : x_(x),
        taps_{forward_grid(s)},
        pointwise_(is_row_of_pixels(s)),
        outputs_(s.N * s.window.P * s.window.Q),
        C_(taps(s) * s.C),
        K_(s.K),
        products_{C_, scratch_row<T>(C_ + kLanes<T>), scratch_row<T>(s.K), round_up(C_, kLanes<T>)},
        block_(pointwise_ ? clamp(kBlock / (C_ + s.K), 32, 128) : clamp(2 * kBlock / (C_ + s.K), 48, 128)) {}

  void run(const T* dy, T* dw) const {
    run(GivenGradient<T>{dy, K_}, dw, AsItLies<T>{}, [](Index, Index, Index, const T*) {});
  }

  // behind(chunk, first, count, dy) is called behind a block of outputs, whose gradients dy (count, K) are in the cache
  // then, with what they read.
  template <class Gradient, class Reader, class F>
  void run(const Gradient& dy, T* dw, const Reader& reader, const F& behind) const {
    const Index size = K_ * products_.sums_row, blocks = ceil_div(outputs_, block_), chunks = this->chunks();
    const int threads = num_threads();
    const Index splits = products_.splits(threads, chunks, K_);
    const Workspace sums = workspace_of<T>(chunks * size), scratch = workspace_of<T>(threads * scratch_elements());
    parallel_for(chunks * splits, threads, [&](Index task, int thread) {
      const Index i = task / splits;
      add_chunk(dy, part(blocks, chunks, i), products_.share(K_, splits, task % splits),
                scratch.as<T>() + thread * scratch_elements(), sums.as<T>() + i * size, reader,
                [&](Index first, Index count, const T* rows) {
                  if (task % splits == 0) behind(i, first, count, rows);
                });
    });
    parallel_for(K_, threads,
                 [&](Index k) { add_pieces(sums.as<T>() + k * products_.sums_row, chunks, size, C_, dw + k * C_); });
  }

  Index chunks() const {
    return clamp(kMostSums / (K_ * products_.sums_row), 1, least(ceil_div(outputs_, block_), kTasksWanted));
  }

 private:
  static constexpr Index kBlock = 9 * 1024;    // elements: of x and dy, in L1; in L2 where the taps are many
  static constexpr Index kMostSums = 1 << 19;  // elements, of all chunks

  // Whether 1x1 reads its pixels where they lie: with AVX-512, whose machines mostly have an L1 of 48 KiB. In 32 KiB
  // they push each other out, unless they are copied to rows of another length.
  template <class Gradient, class Reader>
  static constexpr bool kAsGiven =
      STAPES_VECTOR_BYTES == 64 && std::is_same_v<Reader, AsItLies<T>> && std::is_same_v<Gradient, GivenGradient<T>>;

  static Index taps(const Conv2dShape& s) { return s.window.kernel_h * s.window.kernel_w; }

  // x, dy, and what makes dy writes.
  Index scratch_elements() const { return block_ * (products_.x_row + products_.y_row + scratch_row<T>(K_)); }

  template <class Gradient, class Reader, class F>
  void add_chunk(const Gradient& gradient, Range blocks, Range ks, T* scratch, T* sums, const Reader& reader,
                 const F& behind_block) const {
    std::memset(static_cast<void*>(sums + ks.begin * products_.sums_row), 0,
                static_cast<std::size_t>((ks.end - ks.begin) * products_.sums_row) * sizeof(T));
    T *x = scratch, *dy = x + block_ * products_.x_row, *made = dy + block_ * products_.y_row;
    const Blocks<T> columns(C_);
    const Index tiles = columns.count * ceil_div(ks.end - ks.begin, columns.rows());
    const bool in_place = kAsGiven<Gradient, Reader> && pointwise_ && C_ % kLanes<T> == 0;
    OuterProducts<T> products = products_;
    if (in_place) {
      products.x_row = C_;
      products.y_row = K_;
    }
    for (Index i = blocks.begin; i < blocks.end; ++i) {
      const Index first = i * block_, count = least(block_, outputs_ - first);
      const T* rows = gradient.take(first, count, made);
      if (!in_place) copy_rows(first, count, rows, x, dy, reader);
      const Index behind = first + count, next = least(block_, outputs_ - behind);
      Prefetch next_x(x_ + (pointwise_ ? behind * C_ : 0), pointwise_ ? next * C_ : 0, tiles);
      auto next_dy = gradient.fetch(behind, next, tiles);
      products.add(in_place ? x_ + first * C_ : x, in_place ? rows : dy, count, ks, sums, [&] {
        next_x();
        next_dy();
      });
      behind_block(first, count, rows);
    }
  }

  // What the outputs' taps read, and their gradients, side by side.
  template <class Reader>
  void copy_rows(Index first, Index count, const T* rows, T* x, T* dy, const Reader& reader) const {
    for (Index j = 0; j < count; ++j, x += products_.x_row, dy += products_.y_row) {
      if (pointwise_) {
        read_row(x_ + (first + j) * C_, 1, C_, x, reader);
      } else {
        taps_.read(x_, first + j, x, reader);
      }
      copy_vectors(rows + j * K_, K_, dy);
    }
  }

  const T* x_;
  TapReader<T> taps_;
  bool pointwise_;
  Index outputs_, C_, K_;  // C: what the taps of one output read
  OuterProducts<T> products_;
  Index block_;  // outputs copied at a time
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
