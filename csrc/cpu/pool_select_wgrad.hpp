// dw[k,r,s,c] and db[k] of a first layer behind ReLU and 2 x 2 max pooling, from the pooled gradient dy and its argmax
// dy and argmax (N, P / 2, Q / 2, K), x (N,H,W,C), dw (K,R,S,C); any stride and padding; few R * S * C.
// Work: vectors lie along k. Each number of the patch gets its neighbours to the right, below, and there to the right
// beside it: the four that the places of a window meet through one (r,s,c). argmax, as the index of a permutation, then
// picks for each k the one that its gradient is to be multiplied with. Sums of up to kMostRows (r,s,c) stay in
// registers over the windows of a band (band.hpp).
// Threads: the bands are cut into chunks, a number fixed by the shape, each summed into partial dw and db of its own.
// Numerics: sums in T, a chunk's windows in order, then the chunks in order; db over the chunks in double. What is dead
// counts as a gradient of 0. Overwrites.
#pragma once

#include "cpu/argmax.hpp"
#include "cpu/pool_sparse.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

// Four numbers of T.
template <class T>
struct FourOf {
  typedef T type __attribute__((vector_size(4 * sizeof(T))));
  typedef T unaligned __attribute__((vector_size(4 * sizeof(T)), aligned(alignof(T)), may_alias));
};

template <class T>
class PoolSelectWgrad {
 public:
  static bool can(const Conv2dShape& s, const PoolGrid& pool) {
    return kLanes<T> >= 4 && pool.pool_h == 2 && pool.pool_w == 2 && s.C <= 4 &&
           s.window.kernel_h * s.window.kernel_w * s.C <= kMostDepth;
  }

  PoolSelectWgrad(const Conv2dReluMaxPool2dBwdArgs& a, const PoolGrid& pool)
      : dy_(static_cast<const T*>(a.dy)),
        argmax_(a.argmax),
        pool_(pool),
        shape_(covered(a.shape, pool)),
        x_(static_cast<const T*>(a.x)),
        grid_(forward_grid(shape_)),
        run_(shape_.window.kernel_w * shape_.C),
        depth_(shape_.window.kernel_h * run_),
        padded_K_(round_up(pool.K, kLanes<T>)),
        bands_(grid_, kPatch, true, 2, 2) {}

  void operator()(T* dw, T* db) const {
    const Index size = (depth_ + 1) * padded_K_;  // of a partial: (r,s,c) by k, then db
    const Index chunks = least(bands_.count(), kTasksWanted);
    const Workspace partials = workspace_of<T>(chunks * size);
    const int threads = num_threads();
    const Workspace scratch = workspace_of<T>(threads * scratch_elements());
    parallel_for(chunks, threads, [&](Index chunk, int thread) {
      T* partial = partials.as<T>() + chunk * size;
      std::memset(static_cast<void*>(partial), 0, static_cast<std::size_t>(size) * sizeof(T));
      const Range mine = part(bands_.count(), chunks, chunk);
      for (Index i = mine.begin; i < mine.end; ++i) {
        add_band(bands_[i], scratch.as<T>() + thread * scratch_elements(), partial);
      }
    });
    reduce(partials.as<T>(), chunks, size, dw, db);
  }

 private:
  static constexpr Index kMostDepth = 64;
  static constexpr Index kPatch = 1024;  // elements: of x, so that what is made of a band stays in L1 and L2
  static constexpr int kMostRows = 9;    // (r,s,c) summed at a time
  static constexpr Index kLine = 64 / sizeof(T), kAhead = 2048;  // of dy, fetched while those before it are read

  Index windows() const { return bands_.rows() * bands_.cols() / 4; }
  Index four_elements() const { return round_up(4 * (bands_.patch_elements() + kVectorSlack), kVectorSlack); }
  Index scratch_elements() const { return patch_elements() + four_elements() + 2 * windows() * padded_K_; }
  // A number's neighbours lie up to a row and a pixel further on, also those of the last one.
  Index patch_elements() const {
    return round_up(bands_.patch_elements() + bands_.output_row() + bands_.output_pixel(), kVectorSlack);
  }

  void add_band(const Band& band, T* scratch, T* partial) const {
    const T* patch = bands_.gather(x_, band, scratch);
    T* fours = scratch + patch_elements();
    T* dy = fours + four_elements();
    auto* index = reinterpret_cast<Lanes<T>*>(dy + windows() * padded_K_);
    make_fours(patch, fours);
    spread(band, dy, index, partial + depth_ * padded_K_);
    // Short kernel rows are taken three at a time.
    const Index together = 3 * run_ <= kMostRows ? 3 : 1;
    for (Index k = 0; k < padded_K_; k += kLanes<T>)
      for (Index r = 0; r < shape_.window.kernel_h; r += together)
        for (Index l = 0; l < run_; l += kMostRows) {
          const Index rows = least(together, shape_.window.kernel_h - r);
          add_taps(band, {r, r + rows}, {l, least(run_, l + kMostRows)}, fours, dy + k, index + k, partial + k);
        }
  }

  // (number of the patch, place): what the places of a window meet whose first place meets this number.
  void make_fours(const T* patch, T* to) const {
    using Four = typename FourOf<T>::type;
    const auto load_four = [](const T* p) -> Four {
      return *reinterpret_cast<const typename FourOf<T>::unaligned*>(p);
    };
    const auto store_four = [](T* p, Four v) { *reinterpret_cast<typename FourOf<T>::unaligned*>(p) = v; };
    const Index row = bands_.output_row(), pixel = bands_.output_pixel(), count = bands_.patch_elements();
    for (Index i = 0; i < count; i += 4, to += 16) {
      const T* from = patch + i;
      const Four a = load_four(from), b = load_four(from + pixel), c = load_four(from + row),
                 d = load_four(from + row + pixel);
      const Four ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
      const Four ef = __builtin_shufflevector(a, b, 2, 6, 3, 7), gh = __builtin_shufflevector(c, d, 2, 6, 3, 7);
      store_four(to, __builtin_shufflevector(ab, cd, 0, 1, 4, 5));
      store_four(to + 4, __builtin_shufflevector(ab, cd, 2, 3, 6, 7));
      store_four(to + 8, __builtin_shufflevector(ef, gh, 0, 1, 4, 5));
      store_four(to + 12, __builtin_shufflevector(ef, gh, 2, 3, 6, 7));
    }
  }

  // The gradients that are alive, zero for the others, and their places, both as wide as T; and their sum.
  void spread(const Band& band, T* dy, Lanes<T>* index, T* db) const {
    const Index K = pool_.K, padded = padded_K_;
    for (Index i = 0; i < band.rows / 2; ++i)
      for (Index j = 0; j < band.cols / 2; ++j, dy += padded, index += padded) {
        const Index window = (band.n * pool_.rows() + band.p / 2 + i) * pool_.cols() + band.q / 2 + j;
        const T* from = dy_ + window * K;
        const std::uint8_t* argmax = argmax_ + window * K;
        Index k = 0;
        for (Index ahead = 0; ahead < K; ahead += kLine) __builtin_prefetch(from + kAhead + ahead);
        __builtin_prefetch(argmax + kAhead);
        for (; k + kLanes<T> <= K; k += kLanes<T>) {
          const Lanes<Vec<T>> place = widen_bytes<T>(argmax + k);
          const Vec<T> g = place == kDead ? Vec<T>{} : load(from + k);
          store(dy + k, g);
          std::memcpy(index + k, &place, sizeof(place));
          store(db + k, load(db + k) + g);
        }
        for (; k < padded; ++k) {
          const bool alive = k < K && argmax[k] != kDead;
          dy[k] = alive ? from[k] : T(0);
          index[k] = alive ? argmax[k] : 0;
          db[k] += dy[k];
        }
      }
  }

  // Calls f.operator()<n>() for n = 1 .. kMost.
  template <int kMost, class F>
  static void with_count(Index n, const F& f) {
    if constexpr (kMost > 1) {
      if (n < kMost) return with_count<kMost - 1>(n, f);
    }
    f.template operator()<kMost>();
  }

  // Kernel rows r, and of each the numbers l of its run, over all windows of the band, for a vector of k.
  void add_taps(const Band& band, Range r, Range l, const T* fours, const T* dy, const Lanes<T>* index,
                T* partial) const {
    const auto add = [&]<int R, int L>() {
      const T* from[R];
      T* to[R];
      for (int i = 0; i < R; ++i) {
        from[i] = fours + 4 * (bands_.tap_offset((r.begin + i) * shape_.window.kernel_w) + l.begin);
        to[i] = partial + ((r.begin + i) * run_ + l.begin) * padded_K_;
      }
      add_rows<R, L>(from, dy, index, band.rows / 2, band.cols / 2, to);
    };
    if (r.end - r.begin == 1) {
      with_count<kMostRows>(l.end - l.begin, [&]<int L>() { add.template operator()<1, L>(); });
    } else {
      with_count<kMostRows / 3>(l.end - l.begin, [&]<int L>() {
        with_count<3>(r.end - r.begin, [&]<int R>() { add.template operator()<R, L>(); });
      });
    }
  }

  template <int R, int L>
  [[gnu::noinline]] void add_rows(const T* const* fours, const T* dy, const Lanes<T>* index, Index rows, Index cols,
                                  T* const* to) const {
    const Index step = 8 * bands_.output_pixel(), row = 8 * bands_.output_row() - cols * step, padded = padded_K_;
    const T* from[R];
#pragma GCC unroll 3
    for (int i = 0; i < R; ++i) from[i] = fours[i];
    Vec<T> acc[R][L] = {};
    for (Index p = 0; p < rows; ++p) {
      for (Index q = 0; q < cols; ++q, dy += padded, index += padded) {
        Lanes<Vec<T>> places;
        std::memcpy(&places, index, sizeof(places));
        const Vec<T> g = load(dy);
#pragma GCC unroll 3
        for (int i = 0; i < R; ++i) {
#pragma GCC unroll 9
          for (int l = 0; l < L; ++l) acc[i][l] += g * pick(from[i] + l * 4, places);
          from[i] += step;
        }
      }
#pragma GCC unroll 3
      for (int i = 0; i < R; ++i) from[i] += row;
    }
#pragma GCC unroll 3
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 9
      for (int l = 0; l < L; ++l) store(to[i] + l * padded, load(to[i] + l * padded) + acc[i][l]);
  }

  void reduce(const T* partials, Index chunks, Index size, T* dw, T* db) const {
    const Workspace sums = workspace_of<T>(depth_ * padded_K_);
    add_pieces(partials, chunks, size, depth_ * padded_K_, sums.as<T>());
    for (Index k = 0; k < pool_.K; ++k) {
      for (Index l = 0; l < depth_; ++l) dw[k * depth_ + l] = sums.as<T>()[l * padded_K_ + k];
      double sum = 0;
      for (Index c = 0; c < chunks; ++c) sum += static_cast<double>(partials[c * size + depth_ * padded_K_ + k]);
      db[k] = static_cast<T>(sum);
    }
  }

  const T* dy_;
  const std::uint8_t* argmax_;
  PoolGrid pool_;
  Conv2dShape shape_;
  const T* x_;
  Grid grid_;
  Index run_, depth_, padded_K_;
  Bands bands_;
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
