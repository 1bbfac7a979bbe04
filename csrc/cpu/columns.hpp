// Reductions over the rows of a (rows, cols) matrix, one result for each column, in double: channels are innermost, so
// a vector holds neighbouring channels and no sum is ever taken across its lanes.
#pragma once

#include "cpu/parallel.hpp"
#include "cpu/simd.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

inline constexpr int kDoubles = kLanes<double>;

inline Vec<double> load_double(const double* p) { return load(p); }
// Intrinsics, since GCC 12 splits __builtin_convertvector into halves (and warns falsely of _mm512_cvtps_pd).
inline Vec<double> load_double(const float* p) {
#if defined(__AVX512F__)
  return _mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(p));
#elif defined(__AVX2__)
  return _mm256_cvtps_pd(_mm_loadu_ps(p));
#else
  typedef float Half __attribute__((vector_size(STAPES_VECTOR_BYTES / 2), aligned(4), may_alias));
  return __builtin_convertvector(*reinterpret_cast<const Half*>(p), Vec<double>);
#endif
}

// V vectors of columns from `first` on, or the `n` last columns that fill no vector (kPart).
template <int V, bool kPart>
struct ColumnBlock {
  static constexpr int kVectors = V;
  std::int64_t first;
  int n;

  // The block's v-th vector in the row (or per-column array) that starts at p.
  template <class T>
  Vec<double> get(const T* p, int v) const {
    p += first + v * kDoubles;
    if constexpr (!kPart) {
      return load_double(p);
    } else {
      Vec<double> values{};
      for (int i = 0; i < n; ++i) values[i] = static_cast<double>(p[i]);
      return values;
    }
  }

  // Has the cache fetch the block in the row that starts at p: rows apart are no pattern that it would see by itself.
  template <class T>
  void fetch(const T* p) const {
    constexpr int kLine = 64 / (kDoubles * static_cast<int>(sizeof(T)));  // vectors
    for (int v = 0; v < V; v += kLine) __builtin_prefetch(p + first + v * kDoubles);
  }

  void put(double* p, int v, Vec<double> values) const {
    p += first + v * kDoubles;
    if constexpr (kPart) {
      store_part(p, values, n);
    } else {
      store(p, values);
    }
  }
};

inline constexpr std::int64_t kColumnBlock = 4 * kDoubles;  // four chains of additions hide their latency

// f(block) for blocks that cover all columns.
template <class F>
void for_columns(std::int64_t cols, const F& f) {
  std::int64_t c = 0;
  for (; c + kColumnBlock <= cols; c += kColumnBlock) f(ColumnBlock<4, false>{c, kDoubles});
  for (; c + kDoubles <= cols; c += kDoubles) f(ColumnBlock<1, false>{c, kDoubles});
  if (c < cols) f(ColumnBlock<1, true>{c, static_cast<int>(cols - c)});
}

// f(first row, last row + 1, block) for blocks that cover the matrix, each column's rows in order. Tiles of rows keep
// the reading nearly sequential, where a whole column of blocks at a time would stride through memory.
template <class F>
void for_row_tiles(std::int64_t rows, std::int64_t cols, const F& f) {
  const std::int64_t height = cols < 512 ? 4096 / cols : 8;
  for (std::int64_t r = 0; r < rows; r += height) {
    const std::int64_t end = least(r + height, rows);
    for_columns(cols, [&](auto block) { f(r, end, block); });
  }
}

// How (rows, channels) is cut into tasks. Few channels would leave vectors half empty, so `fold` rows are seen as one
// row of `wide` = fold * channels columns, a multiple of kColumnBlock; the rows left over are a task of their own.
struct RowChunks {
  std::int64_t channels, fold, wide, wide_rows, tail_rows, chunks;

  RowChunks(std::int64_t rows, std::int64_t channels_) : channels(channels_), fold(1) {
    if (channels < 32) {
      while (fold * channels % kColumnBlock != 0) fold *= 2;
    }
    wide = fold * channels;
    wide_rows = rows / fold;
    tail_rows = rows % fold;
    std::int64_t height = kGrain / wide;
    if (height < 32) height = 32;
    chunks = ceil_div(wide_rows, height);
  }

  std::int64_t tasks() const { return chunks + (tail_rows > 0 ? 1 : 0); }

  // f(first element, rows, columns) of task i.
  template <class F>
  void run(std::int64_t i, const F& f) const {
    if (i == chunks) {
      f(wide_rows * wide, tail_rows, channels);
    } else {
      const Range r = part(wide_rows, chunks, i);
      f(r.begin * wide, r.end - r.begin, wide);
    }
  }

  // Fills the per-column array from its first `channels` entries.
  template <class T>
  void repeat(T* p) const {
    for (std::int64_t c = channels; c < wide; ++c) p[c] = p[c - channels];
  }
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
