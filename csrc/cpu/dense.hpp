// Linear with large weights and few rows: y (M,K) = relu(b + x (M,C) w (K,C)^T), dx (M,C) = dy w, dw (K,C) = dy^T x.
// Here the weights are most of the memory that is touched, and the rows of w, x and dw lie so far apart that those of
// one column share a few sets of the caches. So all three go over c in blocks, which are independent of one another,
// and each block of w is read (of dw: written) once for all M rows.
//   fwd: x and w lie along c both: tiles of dot products, vectors along c, their lanes added at the end of the block;
//        the blocks' sums are added in order.
//   dgrad, wgrad: the block of w, or of x, is copied to rows that lie together; then sums of outer products as in
//        conv2d_wgrad, over k or over the rows.
// Threads: the blocks, whose number depends on C alone. Numerics: sums in T: fwd by lanes, then blocks, then the bias;
// the others in the order of k, or of the rows.
#pragma once

#include "cpu/conv2d.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

struct Dense {
  Index M, C, K;

  explicit Dense(const Conv2dShape& flat) : M(flat.W), C(flat.C), K(flat.K) {}

  // `flat` as flatten_pointwise makes it.
  static bool can(const Conv2dShape& flat) { return is_row_of_pixels(flat) && flat.groups == 1; }
};

// Lanes added pairwise: the first half to the second, and so on.
template <class T>
[[gnu::always_inline]] inline T sum_of_lanes(Vec<T> v) {
  alignas(sizeof(Vec<T>)) T lanes[kLanes<T>];
  store(lanes, v);
#pragma GCC unroll 8
  for (int half = kLanes<T> / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

// Dot products of MK rows of w with MM rows of x, `length` elements of each.
template <class T, int MM, int MK>
[[gnu::noinline]] void dot_tile(const T* const* x, const T* const* w, Index length, T* const* y) {
  Vec<T> acc[MM][MK] = {};
  const auto add = [&](const auto& at) {
    Vec<T> b[MK];
#pragma GCC unroll 4
    for (int k = 0; k < MK; ++k) b[k] = at(w[k]);
#pragma GCC unroll 4
    for (int m = 0; m < MM; ++m) {
      const Vec<T> a = at(x[m]);
#pragma GCC unroll 4
      for (int k = 0; k < MK; ++k) acc[m][k] += a * b[k];
    }
  };
  Index c = 0;
  for (; c + kLanes<T> <= length; c += kLanes<T>) add([&](const T* p) { return load(p + c); });
  if (c < length) add([&](const T* p) { return load_part(p + c, static_cast<int>(length - c)); });
#pragma GCC unroll 4
  for (int m = 0; m < MM; ++m)
#pragma GCC unroll 4
    for (int k = 0; k < MK; ++k) y[m][k] = sum_of_lanes<T>(acc[m][k]);
}

template <class T>
class DenseForward {
 public:
  DenseForward(const Dense& d, const Conv2dFwdArgs& a)
      : d_(d),
        x_(static_cast<const T*>(a.x)),
        w_(static_cast<const T*>(a.w)),
        b_(static_cast<const T*>(a.b)),
        y_(static_cast<T*>(a.y)),
        relu_(a.relu) {}

  void run() const {
    const Index blocks = ceil_div(d_.C, kBlock), size = d_.M * d_.K;
    const Workspace partials = workspace_of<T>(blocks * size);
    parallel_for(blocks, [&](Index i) { add_block(part(d_.C, blocks, i), partials.as<T>() + i * size); });
    parallel_ranges(size, kGrain / blocks + 1, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) {
        T sum = b_ != nullptr ? b_[i % d_.K] : T(0);
        for (Index block = 0; block < blocks; ++block) sum += partials.as<T>()[block * size + i];
        y_[i] = relu_ && sum < T(0) ? T(0) : sum;
      }
    });
  }

 private:
  static constexpr Index kBlock = 1024;  // of c: the sum of lanes then takes a tenth of the time
  static constexpr int kRows = 3, kColumns = 4;

  void add_block(Range c, T* partial) const {
    const T *x[kRows], *w[kColumns];
    T tile[kRows][kColumns], *to[kRows];
    for (int m = 0; m < kRows; ++m) to[m] = tile[m];
    for (Index k0 = 0; k0 < d_.K; k0 += kColumns) {
      for (int k = 0; k < kColumns; ++k) w[k] = w_ + least(k0 + k, d_.K - 1) * d_.C + c.begin;
      const Index columns = least(kColumns, d_.K - k0);
      for (Index m0 = 0; m0 < d_.M; m0 += kRows) {
        for (int m = 0; m < kRows; ++m) x[m] = x_ + least(m0 + m, d_.M - 1) * d_.C + c.begin;
        dot_tile<T, kRows, kColumns>(x, w, c.end - c.begin, to);
        for (Index m = 0; m < least(kRows, d_.M - m0); ++m)
          for (Index k = 0; k < columns; ++k) partial[(m0 + m) * d_.K + k0 + k] = tile[m][k];
      }
    }
  }

  Dense d_;
  const T *x_, *w_, *b_;
  T* y_;
  bool relu_;
};

// out (rows,C) = a (rows,depth) in (depth,C), for a whose elements lie a_row and a_step apart.
template <class T>
struct OuterSum {
  const T *a, *in;
  T* out;
  Index rows, depth, C;
  Index a_row, a_step;

  static constexpr int kVectors = kMaxTileVectors, kRows = kTileRows<kVectors>;
  static constexpr Index kWidth = 4 * kVectors * kLanes<T>;  // of a block: whole tiles
  static constexpr Index kDepth = 256;                       // rows of a block copied at a time

  void run() const {
    const Index blocks = ceil_div(C, kWidth);
    const int threads = num_threads();
    const Workspace scratch = workspace_of<T>(threads * kDepth * kWidth);
    parallel_for(blocks, threads, [&](Index i, int thread) {
      const Range c{i * kWidth, least(C, (i + 1) * kWidth)};
      for (Index d = 0; d < depth; d += kDepth)
        add_block(c, {d, least(depth, d + kDepth)}, scratch.as<T>() + thread * kDepth * kWidth);
    });
  }

 private:
  void add_block(Range c, Range d, T* block) const {
    const Index width = c.end - c.begin;
    for (Index i = d.begin; i < d.end; ++i) {
      T* to = block + (i - d.begin) * kWidth;
      std::memcpy(to, in + i * C + c.begin, static_cast<std::size_t>(width) * sizeof(T));
      for (Index j = width; j < kWidth; ++j) to[j] = T(0);
    }
    for (Index r = 0; r < rows; r += kRows)
      for (Index v = 0; v < width; v += kVectors * kLanes<T>) add_tile(r, c.begin + v, width - v, block + v, d);
  }

  void add_tile(Index r, Index c, Index width, const T* block, Range d) const {
    const T* from[kRows];
    T* to[kRows];
    for (int m = 0; m < kRows; ++m) {
      const Index row = least(r + m, rows - 1);
      from[m] = a + row * a_row + d.begin * a_step;
      to[m] = out + row * C + c;
    }
    Tile<T, kRows, kVectors> tile{};
    if (d.begin > 0) tile.load_from(to, width);
    tile.add_outer(from, a_step, block, kWidth, d.end - d.begin);
    tile.store_to(to, static_cast<int>(least(kRows, rows - r)), width);
  }
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
