// Depthwise convolutions with up to 3 taps in a row that lie side by side, and a stride of 1 or 2 along it; any number
// of rows of taps. y[p,q,c] = b[c] + sum over (r,s) of x[p,q,r,s,c] w[r,s,c], and its weight gradient.
// Work: for a few neighbouring outputs of a row at a time, all channels by vectors: a row of taps reads each pixel
// once for all of those outputs. So memory is read in order, and the pixels of a row do not meet in a few sets of the
// cache, as a fixed vector of channels of all pixels would. The image is read where it lies: rows of taps that fall
// beside it are left out, and pixels beside it count as zeros. What is read passes a reader (norm_relu.hpp).
// Threads: pieces of the rows of all images, a number fixed by the shape; in wgrad each has sums of its own.
// Numerics: sums in T, in the order of (r, s), beginning with the bias; in wgrad in the order of pixels, then of
// pieces. Overwrites.
#pragma once

#include "cpu/band.hpp"
#include "cpu/workspace.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

// f(part, c, n) for each vector of n channels from the c-th on; `part` is true for a last one that is not full.
template <class T, class F>
[[gnu::always_inline]] inline void for_channel_vectors(Index channels, const F& f) {
  Index c = 0;
  for (; c + kLanes<T> <= channels; c += kLanes<T>) f(std::false_type{}, c, kLanes<T>);
  if (c < channels) f(std::true_type{}, c, static_cast<int>(channels - c));
}

template <class T, bool kPart>
[[gnu::always_inline]] inline Vec<T> load_channels(std::bool_constant<kPart>, const T* p, int n) {
  if constexpr (kPart) return load_part(p, n);
  return load(p);
}

template <class T, bool kPart>
[[gnu::always_inline]] inline void store_channels(std::bool_constant<kPart>, T* p, Vec<T> v, int n) {
  if constexpr (kPart) {
    store_part(p, v, n);
  } else {
    store(p, v);
  }
}

// Neighbouring outputs of one row, in groups that are computed together, and their taps in the image: `rows` rows of
// them, from the r-th on.
struct DepthwiseOutputs {
  Index q, groups;
  Index r, rows;
  Index begin, end;  // of the pixels of a row of the first group's taps, those in the image
  Index x;           // where the first of these is, through the r-th row of taps, in elements of the image
};

// Rows of an image, of which the first `skipped` elements are not there.
template <class T>
struct ImageRows {
  const T* data;
  Index skipped;
};

template <class T>
class Depthwise {
 public:
  static bool can(const Grid& g) {
    const bool together = g.cols.count == 1 || (g.cols.count <= kMostTaps && g.cols.step == 1);
    return g.cols.count > 0 && g.rows.count > 0 && together && g.stride_w <= 2;
  }

  explicit Depthwise(const Grid& g) : g_(g), tap_(round_up(g.C, kLanes<T>)) {}

  // y (n,p,q) is at y + n * image + p * row + q * pixel; weights (R, S, padded channels), padded bias. behind(piece,
  // thread, outputs, pixels) is called behind every row.
  template <class Reader, class F>
  void forward(const T* x, const T* w, const T* bias, bool relu, T* y, Index image, Index row, Index pixel, int threads,
               const Reader& reader, const F& behind) const {
    parallel_for(pieces(), threads, [&](Index piece, int thread) {
      const Range rows = part(g_.N * g_.P, pieces(), piece);
      for (Index i = rows.begin; i < rows.end; ++i) {
        const Index n = i / g_.P, p = i % g_.P;
        T* to = y + n * image + p * row;
        forward_row({x + n * g_.H * g_.W * g_.C, 0}, p, w, bias, relu, to, pixel, reader);
        behind(piece, thread, to, g_.Q);
      }
    });
  }

  // Row p of an image's outputs, to y.
  template <class Reader>
  void forward_row(const ImageRows<T>& x, Index p, const T* w, const T* bias, bool relu, T* y, Index pixel,
                   const Reader& reader) const {
    for_outputs<true>(p, [&]<int kR, int kS, int kStride, int M, bool kEdge>(const DepthwiseOutputs& at) {
      outputs<kR, kS, kStride, M, kEdge>(at, x.data + (at.x - x.skipped), w, bias, relu, y + at.q * pixel, pixel,
                                         reader);
    });
  }

  void wgrad(const T* x, const T* dy, T* dw) const {
    const auto row = [&](Index, Index i, int) { return dy + i * g_.Q * g_.C; };
    wgrad(x, dw, num_threads(), AsItLies<T>{}, row, true);
  }

  // dw (C, R, S). dy(piece, i, thread) gives row i of all images' rows of outputs' gradients, (Q, C); fetch_dy: which
  // nobody has just read or made.
  template <class Reader, class F>
  void wgrad(const T* x, T* dw, int threads, const Reader& reader, const F& dy, bool fetch_dy = false) const {
    const Index taps = g_.rows.count * g_.cols.count, size = taps * tap_;
    const Workspace sums = workspace_of<T>(pieces() * size);
    parallel_for(pieces(), threads, [&](Index piece, int thread) {
      const Range rows = part(g_.N * g_.P, pieces(), piece);
      T* own = sums.as<T>() + piece * size;
      std::memset(static_cast<void*>(own), 0, static_cast<std::size_t>(size) * sizeof(T));
      for (Index i = rows.begin; i < rows.end; ++i) {
        const T* from = x + i / g_.P * g_.H * g_.W * g_.C;
        const T* row = dy(piece, i, thread);
        for_outputs<false>(i % g_.P, [&]<int kR, int kS, int kStride, int M, bool kEdge>(const DepthwiseOutputs& at) {
          products<kR, kS, kStride, M, kEdge>(at, from + at.x, row + at.q * g_.C, own, fetch_dy, reader);
        });
      }
    });
    const Workspace all = workspace_of<T>(size);
    add_pieces(sums.as<T>(), pieces(), size, size, all.as<T>());
    for (Index c = 0; c < g_.C; ++c)
      for (Index t = 0; t < taps; ++t) dw[c * taps + t] = all.as<T>()[t * tap_ + c];
  }

  Index pieces() const { return clamp(g_.N * g_.P, 1, kMostPieces); }

 private:
  static constexpr int kMostTaps = 3, kOutputs = 4;  // with the pixels of their taps, what the registers hold
  static constexpr Index kMostPieces = 64, kLine = 64 / sizeof(T);
  // Groups ahead of which memory is fetched; measured where it lies beyond the cache.
  static constexpr Index kAheadX = 6, kAheadY = 2, kAheadWgrad = 3;

  // f.operator()<kR, kS, kStride, M, kEdge>(outputs) for all outputs of row p, in order: M neighbours at a time, with kS
  // taps in a row. kR: the rows of taps in the common case (3x3 with stride 1, all rows in the image), else 0. kEdge:
  // where pixels of them lie beside the image. kTwice: some outputs may come twice, so that the last are M as well.
  template <bool kTwice, class F>
  void for_outputs(Index p, const F& f) const {
    const Index top = p * g_.stride_h + g_.rows.first, step = g_.rows.step;
    const Index r = clamp(ceil_div(-top, step), 0, g_.rows.count);
    DepthwiseOutputs at{0, 1, r, clamp(ceil_div(g_.H - top, step), r, g_.rows.count) - r, 0, 0, 0};
    const Index first_row = at.rows > 0 ? (top + r * step) * g_.W : 0;
    const auto run = [&]<int kR, int kS, int kStride, int M>() {
      constexpr int kPixels = (M - 1) * kStride + kS;
      for (; at.q + M <= g_.Q; at.q += at.groups * M) {
        const Index left = at.q * kStride + g_.cols.first, right = g_.W - left;
        at.begin = clamp(-left, 0, kPixels);
        at.end = clamp(right, at.begin, kPixels);
        at.x = (first_row + (at.end > at.begin ? left + at.begin : 0)) * g_.C;
        if (at.end - at.begin == kPixels) {
          at.groups = least((g_.Q - at.q) / M, (right - kPixels) / (M * kStride) + 1);
          f.template operator()<kR, kS, kStride, M, false>(at);
        } else {
          at.groups = 1;
          f.template operator()<kR, kS, kStride, M, true>(at);
        }
      }
    };
    const auto all = [&]<int kR, int kS, int kStride>() {
      run.template operator()<kR, kS, kStride, kOutputs>();
      if (at.q == g_.Q) return;
      if (kTwice && g_.Q >= kOutputs) {
        at.q = g_.Q - kOutputs;
        run.template operator()<kR, kS, kStride, kOutputs>();
      } else {
        run.template operator()<0, kS, kStride, 1>();
      }
    };
    with_taps([&]<int kS, int kStride>() {
      if constexpr (kS == 3 && kStride == 1) {
        if (at.rows == kS && g_.rows.count == kS) return all.template operator()<kS, kS, kStride>();
      }
      all.template operator()<0, kS, kStride>();
    });
  }

  // f.operator()<taps in a row, stride>()
  template <class F>
  void with_taps(const F& f) const {
    const auto with_stride = [&]<int kS>() {
      if (g_.stride_w == 1) return f.template operator()<kS, 1>();
      f.template operator()<kS, 2>();
    };
    switch (g_.cols.count) {
      case 1: return with_stride.template operator()<1>();
      case 2: return with_stride.template operator()<2>();
      default: return with_stride.template operator()<3>();
    }
  }

  template <int kR, int kS, int kStride, int M, bool kEdge, class Reader>
  [[gnu::noinline]] void outputs(const DepthwiseOutputs& at, const T* x, const T* w, const T* bias, bool relu, T* y,
                                 Index y_pixel, const Reader& reader) const {
    const Index C = g_.C, tap = tap_, x_row = g_.rows.step * g_.W * C;
    w += at.r * kS * tap;
    for (Index group = 0; group < at.groups; ++group, x += M * kStride * C, y += M * y_pixel) {
      fetch<kStride, M>(at, kAheadX, x, x_row);
      for (Index i = 0; i < M * C; i += kLine) __builtin_prefetch(y + kAheadY * M * y_pixel + i, 1);
      for_channel_vectors<T>(C, [&](auto part, Index c, int n) {
        const auto read = reader.channels(c);
        Vec<T> acc[M];
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) acc[m] = load(bias + c);
        for_rows<kR>(at, [&](Index r) {
          const Pixels<kS, kStride, M, kEdge> in(part, as_is(x + r * x_row + c), C, n, read, at);
          const T* taps = as_is(w + r * kS * tap + c);
#pragma GCC unroll 3
          for (int s = 0; s < kS; ++s) {
            const Vec<T> b = load(taps + s * tap);
#pragma GCC unroll 4
            for (int m = 0; m < M; ++m) acc[m] += in.x[m * kStride + s] * b;
          }
        });
        T* to = as_is(y + c);
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) {
          if (relu) acc[m] = acc[m] < Vec<T>{} ? Vec<T>{} : acc[m];
          store_channels(part, to + m * y_pixel, acc[m], n);
        }
      });
    }
  }

  // f(r) for the rows of taps in the image, counted from the first of them.
  template <int kR, class F>
  [[gnu::always_inline]] static void for_rows(const DepthwiseOutputs& at, const F& f) {
    if constexpr (kR > 0) {
#pragma GCC unroll 3
      for (Index r = 0; r < kR; ++r) f(r);
    } else {
      for (Index r = 0; r < at.rows; ++r) f(r);
    }
  }

  // Has the cache fetch what the outputs `groups` further on read of the last row, which nobody read before.
  template <int kStride, int M>
  void fetch(const DepthwiseOutputs& at, Index groups, const T* x, Index x_row) const {
    x += (at.rows - 1) * x_row + groups * M * kStride * g_.C;
    for (Index i = 0; i < M * kStride * g_.C; i += kLine) __builtin_prefetch(x + i);
  }

  // sums (R, S, padded channels) += the products of outputs' gradients with what they read.
  template <int kR, int kS, int kStride, int M, bool kEdge, class Reader>
  [[gnu::noinline]] void products(const DepthwiseOutputs& at, const T* x, const T* dy, T* sums, bool fetch_dy,
                                  const Reader& reader) const {
    const Index C = g_.C, tap = tap_, x_row = g_.rows.step * g_.W * C;
    sums += at.r * kS * tap;
    for (Index group = 0; group < at.groups; ++group, x += M * kStride * C, dy += M * C) {
      fetch<kStride, M>(at, kAheadWgrad, x, x_row);
      for (Index i = 0; fetch_dy && i < M * C; i += kLine) __builtin_prefetch(dy + kAheadWgrad * M * C + i);
      for_channel_vectors<T>(C, [&](auto part, Index c, int n) {
        const auto read = reader.channels(c);
        Vec<T> g[M];
        const T* from = as_is(dy + c);
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) g[m] = load_channels(part, from + m * C, n);
        for_rows<kR>(at, [&](Index r) {
          const Pixels<kS, kStride, M, kEdge> in(part, as_is(x + r * x_row + c), C, n, read, at);
          T* to = as_is(sums + r * kS * tap + c);
#pragma GCC unroll 3
          for (int s = 0; s < kS; ++s) {
            Vec<T> acc = load(to + s * tap);
#pragma GCC unroll 4
            for (int m = 0; m < M; ++m) acc += g[m] * in.x[m * kStride + s];
            store(to + s * tap, acc);
          }
        });
      });
    }
  }

  // What M outputs read through a row of taps.
  template <int kS, int kStride, int M, bool kEdge>
  struct Pixels {
    static constexpr int kCount = (M - 1) * kStride + kS;
    Vec<T> x[kCount];

    template <class P, class Channels>
    [[gnu::always_inline]] Pixels(P part, const T* from, Index pixel, int n, const Channels& read,
                                  const DepthwiseOutputs& at) {
      const Index skipped = kEdge ? at.begin * pixel : 0;
#pragma GCC unroll 9
      for (int i = 0; i < kCount; ++i) {
        const bool there = !kEdge || (i >= at.begin && i < at.end);
        x[i] = there ? read(load_channels(part, from + (i * pixel - skipped), n)) : Vec<T>{};
      }
    }
  };

  Grid g_;
  Index tap_;  // elements of a tap: padded channels
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
