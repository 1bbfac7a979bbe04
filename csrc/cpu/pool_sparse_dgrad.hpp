// dx[n,h,w,c] of a convolution behind ReLU and max pooling, from the pooled gradient dy and its argmax
// dy and argmax (N, P / pool_h, Q / pool_w, K), w (K,R,S,C), dx (N,H,W,C); any stride and padding; S * C whole vectors.
// Work: a task makes a band of rows of dx, all of them: it goes over the windows that reach it, and for each place of a
// window over the k that argmax has there, as bits of a word. Each adds dy * w[k,r], S * C numbers, to the same run of
// dx, which is in registers meanwhile. r is the outermost loop, then k by 64, so that w stays in L1. The band lies in
// scratch memory, with columns for what falls beside the image.
// Threads: the bands, fixed by the shape.
// Numerics: sums in T, in the order of (k by 64, r, window, place, k), short runs in up to 4 chains. Overwrites.
#pragma once

#include <bit>

#include "cpu/place_bits.hpp"
#include "cpu/pool_sparse.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

template <class T>
class PoolSparseDgrad {
 public:
  // Columns that are far from the image, by a large stride or padding, would be scratch memory too.
  static bool can(const Conv2dShape& s, const PoolGrid& pool) {
    return pool.area() > 1 && s.window.kernel_w * s.C % kLanes<T> == 0 &&
           columns(covered(s, pool)) <= 2 * (s.W + s.window.kernel_w);
  }

  PoolSparseDgrad(const Conv2dReluMaxPool2dBwdArgs& a, const PoolGrid& pool)
      : dy_(static_cast<const T*>(a.dy)),
        argmax_(a.argmax),
        pool_(pool),
        shape_(covered(a.shape, pool)),
        run_(shape_.window.kernel_w * shape_.C),
        words_(ceil_div(pool.K, kWord)),
        columns_(columns(shape_)),
        packed_(workspace_of<T>(words_ * shape_.window.kernel_h * kWord * run_)) {
    pack(static_cast<const T*>(a.w));
    const Index fitting = clamp(kBand / (columns_ * shape_.C), 1, shape_.H);
    const Index tasks_an_image = ceil_div(kTasksWanted, pool.N > 0 ? pool.N : 1);
    rows_ = least(fitting, ceil_div(shape_.H, tasks_an_image));
    bands_ = ceil_div(shape_.H, rows_);
  }

  void operator()(T* dx) const {
    const int threads = num_threads();
    const Index band = rows_ * columns_ * shape_.C, bits = most_pool_rows() * pool_.cols() * pool_.area() * words_;
    const Workspace scratch = workspace_of<T>(threads * band);
    const Workspace masks = workspace_of<std::uint64_t>(threads * bits);
    parallel_for(pool_.N * bands_, threads, [&](Index task, int thread) {
      const Index n = task / bands_, begin = task % bands_ * rows_, end = least(begin + rows_, shape_.H);
      T* own = scratch.as<T>() + thread * band;
      std::memset(static_cast<void*>(own), 0, static_cast<std::size_t>(band) * sizeof(T));
      add_windows(n, {begin, end}, own, masks.as<std::uint64_t>() + thread * bits);
      for (Index h = begin; h < end; ++h)
        copy_row(own + (h - begin) * columns_ * shape_.C, dx + (n * shape_.H + h) * shape_.W * shape_.C);
    });
  }

 private:
  static Index columns(const Conv2dShape& s) { return (s.window.Q - 1) * s.window.stride_w + s.window.kernel_w; }

  static constexpr Index kWord = 64;         // k to a word of bits
  static constexpr Index kBand = 16 * 1024;  // elements: of dx, in L2

  // As (k by 64, r, piece of the run, k, vectors of the piece).
  void pack(const T* w) {
    const Index R = shape_.window.kernel_h;
    const RunPieces<T> pieces(run_);
    parallel_for(words_ * R, [&](Index i) {
      const Index word = i / R, r = i % R;
      T* to = packed_.template as<T>() + i * kWord * run_;
      for (Index p = 0; p < pieces.count; ++p) {
        const Range piece = pieces.piece(p);
        const Index begin = piece.begin * kLanes<T>, width = (piece.end - piece.begin) * kLanes<T>;
        for (Index k = 0; k < least(kWord, pool_.K - word * kWord); ++k) {
          std::memcpy(to + k * width, w + ((word * kWord + k) * R + r) * run_ + begin,
                      static_cast<std::size_t>(width) * sizeof(T));
        }
        to += kWord * width;
      }
    });
  }

  // Rows of windows [begin, end) that reach rows of dx.
  Range pool_rows(Range h) const {
    const Window2d& w = shape_.window;
    // Output row p reads rows p * stride - pad ... p * stride - pad + R - 1.
    const Index first = clamp(ceil_div(std::max<Index>(h.begin + w.pad_top - w.kernel_h + 1, 0), w.stride_h), 0, w.P);
    const Index last = clamp((h.end - 1 + w.pad_top) / w.stride_h + 1, first, w.P);
    return {first / pool_.pool_h, last > first ? ceil_div(last, pool_.pool_h) : first / pool_.pool_h};
  }
  Index most_pool_rows() const {
    return least(((rows_ + shape_.window.kernel_h) / shape_.window.stride_h + 1) / pool_.pool_h + 2, pool_.rows());
  }

  // Bits of a window: for each word of k, for each place.
  const std::uint64_t* bits_of(const std::uint64_t* masks, Index i, Index j, Index word) const {
    return masks + ((i * pool_.cols() + j) * words_ + word) * pool_.area();
  }

  void find_places(Index n, Range rows, std::uint64_t* masks) const {
    const std::uint8_t* argmax = argmax_ + (n * pool_.rows() + rows.begin) * pool_.cols() * pool_.K;
    for (Index window = 0; window < (rows.end - rows.begin) * pool_.cols(); ++window, argmax += pool_.K)
      for (Index word = 0; word < words_; ++word)
        for (Index place = 0; place < pool_.area(); ++place) {
          *masks++ =
              place_bits(argmax + word * kWord, least(kWord, pool_.K - word * kWord), static_cast<std::uint8_t>(place));
        }
  }

  void add_windows(Index n, Range h, T* band, std::uint64_t* masks) const {
    const Window2d& w = shape_.window;
    const Range rows = pool_rows(h);
    find_places(n, rows, masks);
    const RunPieces<T> pieces(run_);
    for (Index word = 0; word < words_; ++word)
      for (Index r = 0; r < w.kernel_h; ++r)
        for (Index p = 0; p < pieces.count; ++p) {
          const Range piece = pieces.piece(p);
          const Index begin = piece.begin * kLanes<T>;
          const T* panel = packed_.template as<T>() + (word * w.kernel_h + r) * kWord * run_ + kWord * begin;
          with_run(piece.end - piece.begin, [&]<int NV>() {
            for (Index i = rows.begin; i < rows.end; ++i)
              for (Index y = 0; y < pool_.pool_h; ++y) {
                const Index at = (i * pool_.pool_h + y) * w.stride_h - w.pad_top + r;
                if (at < h.begin || at >= h.end) continue;
                const T* dy = dy_ + (n * pool_.rows() + i) * pool_.cols() * pool_.K + word * kWord;
                add_row<NV>(dy, bits_of(masks, i - rows.begin, 0, word) + y * pool_.pool_w, panel,
                            band + (at - h.begin) * columns_ * shape_.C + begin);
              }
          });
        }
  }

  // A row of windows, and the places of one of their rows, to a row of dx.
  template <int NV>
  [[gnu::noinline]] void add_row(const T* dy, const std::uint64_t* bits, const T* panel, T* to) const {
    const Index step = shape_.window.stride_w * shape_.C;
    for (Index j = 0; j < pool_.cols(); ++j, dy += pool_.K, bits += words_ * pool_.area())
      for (Index x = 0; x < pool_.pool_w; ++x, to += step) add_place<NV>(dy, bits[x], panel, to);
  }

  template <int NV>
  [[gnu::always_inline]] static void add_place(const T* dy, std::uint64_t bits, const T* panel, T* to) {
    if (bits == 0) return;
    RunSums<T, NV> sums;
#pragma GCC unroll 12
    for (int v = 0; v < NV; ++v) sums.acc[0][0][v] = load(to + v * kLanes<T>);
    if constexpr (kChains<NV> > 1) {
      for (int i = std::popcount(bits); i >= kChains<NV>; i -= kChains<NV>)
#pragma GCC unroll 4
        for (int chain = 0; chain < kChains<NV>; ++chain) add_lowest(sums, chain, dy, bits, panel);
    }
    while (bits != 0) add_lowest(sums, 0, dy, bits, panel);
    sums.join();
#pragma GCC unroll 12
    for (int v = 0; v < NV; ++v) store(to + v * kLanes<T>, sums.acc[0][0][v]);
  }

  template <int NV>
  [[gnu::always_inline]] static void add_lowest(RunSums<T, NV>& sums, int chain, const T* dy, std::uint64_t& bits,
                                                const T* panel) {
    const int k = std::countr_zero(bits);
    bits &= bits - 1;
    sums.add(chain, dy[k], &panel, k * NV * kLanes<T>);
  }

  // The part of a band's row that lies in the image; columns that no window reads have no gradient.
  void copy_row(const T* from, T* to) const {
    const Index left = shape_.window.pad_left, C = shape_.C;
    const Index inside = clamp(columns_ - left, 0, shape_.W);
    std::memcpy(to, from + left * C, static_cast<std::size_t>(inside * C) * sizeof(T));
    std::memset(static_cast<void*>(to + inside * C), 0, static_cast<std::size_t>((shape_.W - inside) * C) * sizeof(T));
  }

  const T* dy_;
  const std::uint8_t* argmax_;
  PoolGrid pool_;
  Conv2dShape shape_;
  Index run_, words_;
  Index columns_;  // of a band: all that windows reach, from pad_left before the image on
  Workspace packed_;
  Index rows_ = 1, bands_ = 1;  // of dx
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
