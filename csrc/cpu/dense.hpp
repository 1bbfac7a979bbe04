// Linear with large weights and few rows: y (M,K) = relu(b + x (M,C) w (K,C)^T), dx (M,C) = dy w, dw (K,C) = dy^T x.
// Here the weights are most of the memory that is touched, and the rows of w, x and dw lie so far apart that those of
// one column share a few sets of the caches. So all three go over c in blocks, which are independent of one another,
// and each block of w is read (of dw: written) once for all M rows.
// What a block reads again and again is copied to rows that lie together.
//   fwd: x and w lie along c both: tiles of dot products, vectors along c, their lanes added at the end of the block;
//        the blocks' sums are added in order.
//   dgrad, wgrad: sums of outer products as in conv2d_wgrad, over k or over the rows.
// Threads: the blocks, whose number depends on C alone. Numerics: sums in T: fwd by lanes, then blocks, then the bias;
// the others in the order of k, or of the rows.
#pragma once

#include <utility>

#include "cpu/conv2d.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

struct Dense {
  Index M, C, K;

  explicit Dense(const Conv2dShape& flat) : M(flat.W), C(flat.C), K(flat.K) {}

  // `flat` as flatten_pointwise makes it.
  static bool can(const Conv2dShape& flat) { return is_row_of_pixels(flat) && flat.groups == 1; }
};

// Of vectors that hold sums of kPart lanes each: first halves plus second halves, those of a before those of b.
template <class T, int kPart>
[[gnu::always_inline]] inline Vec<T> fold_parts(Vec<T> a, Vec<T> b) {
  return [&]<int... i>(std::integer_sequence<int, i...>) {
    constexpr int kHalf = kPart / 2;
    return __builtin_shufflevector(a, b, (i / kHalf * kPart + i % kHalf)...) +
           __builtin_shufflevector(a, b, (i / kHalf * kPart + i % kHalf + kHalf)...);
  }(std::make_integer_sequence<int, kLanes<T>>());
}

// The sums of the lanes of four vectors, each added pairwise: its first half to its second, and so on.
template <class T>
[[gnu::always_inline]] inline void sum_lanes(const Vec<T>* v, T* to) {
  constexpr int kAll = kLanes<T>;
  if constexpr (kAll < 4) {
    for (int i = 0; i < 4; ++i) to[i] = v[i][0] + v[i][1];
  } else {
    Vec<T> sums = fold_parts<T, kAll / 2>(fold_parts<T, kAll>(v[0], v[1]), fold_parts<T, kAll>(v[2], v[3]));
    if constexpr (kAll >= 8) sums = fold_parts<T, kAll / 4>(sums, sums);
    if constexpr (kAll >= 16) sums = fold_parts<T, kAll / 8>(sums, sums);
    std::memcpy(to, &sums, 4 * sizeof(T));
  }
}

// Dot products of MK rows of w with MM rows of x, `length` elements of each.
template <class T, int MM, int MK>
[[gnu::noinline]] void dot_tile(const T* const* x, const T* const* w, Index length, T* const* y) {
  Vec<T> acc[MM][MK] = {};
  const auto add = [&](const auto& at) {
    Vec<T> a[MM];
#pragma GCC unroll 4
    for (int m = 0; m < MM; ++m) a[m] = at(x[m]);
#pragma GCC unroll 8
    for (int k = 0; k < MK; ++k) {
      const Vec<T> b = at(w[k]);
#pragma GCC unroll 4
      for (int m = 0; m < MM; ++m) acc[m][k] += a[m] * b;
    }
  };
  Index c = 0;
  for (; c + kLanes<T> <= length; c += kLanes<T>) add([&](const T* p) { return load(p + c); });
  if (c < length) add([&](const T* p) { return load_part(p + c, static_cast<int>(length - c)); });
#pragma GCC unroll 4
  for (int m = 0; m < MM; ++m)
#pragma GCC unroll 2
    for (int k = 0; k < MK; k += 4) sum_lanes<T>(acc[m] + k, y[m] + k);
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
    const int threads = static_cast<int>(least(num_threads(), blocks));
    const Workspace partials = workspace_of<T>(blocks * size), scratch = workspace_of<T>(threads * d_.M * kRow);
    parallel_for(blocks, threads, [&](Index i, int thread) {
      add_block(part(d_.C, blocks, i), scratch.as<T>() + thread * d_.M * kRow, partials.as<T>() + i * size);
    });
    parallel_ranges(size, kGrain / blocks + 1, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) {
        T sum = b_ != nullptr ? b_[i % d_.K] : T(0);
        for (Index block = 0; block < blocks; ++block) sum += partials.as<T>()[block * size + i];
        y_[i] = relu_ && sum < T(0) ? T(0) : sum;
      }
    });
  }

 private:
  static constexpr Index kBlock = 1024;                   // of c: the sum of lanes then takes a tenth of the time
  static constexpr Index kRow = kBlock + 64 / sizeof(T);  // of x, copied
  static constexpr int kRows = 3, kColumns = STAPES_VECTOR_BYTES == 64 ? 8 : 4;

  // The block of x is copied to rows that lie together: as they are, they would push each other out of the cache.
  void add_block(Range c, T* scratch, T* partial) const {
    for (Index m = 0; m < d_.M; ++m) {
      std::memcpy(scratch + m * kRow, x_ + m * d_.C + c.begin, static_cast<std::size_t>(c.end - c.begin) * sizeof(T));
    }
    const T *x[kRows], *w[kColumns];
    T tile[kRows][kColumns], *to[kRows];
    for (int m = 0; m < kRows; ++m) to[m] = tile[m];
    for (Index k0 = 0; k0 < d_.K; k0 += kColumns) {
      for (int k = 0; k < kColumns; ++k) w[k] = w_ + least(k0 + k, d_.K - 1) * d_.C + c.begin;
      const Index columns = least(kColumns, d_.K - k0);
      for (Index m0 = 0; m0 < d_.M; m0 += kRows) {
        for (int m = 0; m < kRows; ++m) x[m] = scratch + least(m0 + m, d_.M - 1) * kRow;
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
