// dw[k,r,s,c] and db[k] of a convolution behind ReLU and max pooling, from the pooled gradient dy and its argmax
// dy and argmax (N, P / pool_h, Q / pool_w, K), x (N,H,W,C), dw (K,R,S,C); any stride and padding; S * C a vector or
// more.
// Work: for a band of windows (band.hpp), the gradients that are alive are put in a list for each k, with where their
// patch of x begins; then each list is summed over the runs of the patch, whose sums stay in registers, those of several
// runs where they fit. In NHWC a row of the patch, S * C numbers, is one run: there is no dilation, so all are as long.
// Threads: the bands are cut into chunks, a number fixed by the shape, each summed into partial dw and db of its own.
// Numerics: sums in T: a chunk's windows in order, in up to 4 chains for each band and k, then the chunks in order; db
// over the chunks in double. Overwrites.
#pragma once

#include "cpu/argmax.hpp"
#include "cpu/pool_sparse.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

template <class T>
class PoolSparseWgrad {
 public:
  static bool can(const Conv2dShape& s, const PoolGrid& pool) {
    return pool.area() > 1 && s.window.kernel_w * s.C >= kLanes<T>;
  }

  PoolSparseWgrad(const Conv2dReluMaxPool2dBwdArgs& a, const PoolGrid& pool)
      : dy_(static_cast<const T*>(a.dy)),
        argmax_(a.argmax),
        pool_(pool),
        shape_(covered(a.shape, pool)),
        conv_{.input = static_cast<const T*>(a.x),
              .grid = forward_grid(shape_),
              .groups = 1,
              .C = shape_.C,
              .K = shape_.K,
              .tap_count = shape_.window.kernel_h * shape_.window.kernel_w},
        bands_(conv_.grid, kPatch, true, pool.pool_h, pool.pool_w),
        segments_(conv_, bands_) {}

  void operator()(T* dw, T* db) const {
    const Index dw_size = pool_.K * conv_.depth(), size = dw_size + pool_.K;
    const Index chunks = least(least(bands_.count(), kTasksWanted), 1 + kMostPartialElements / size);
    const Workspace partials = workspace_of<T>(chunks * size);
    const int threads = num_threads();
    const Workspace scratch = workspace_of<T>(threads * bands_.patch_elements());
    const Workspace lists = workspace_of<Nonzero>(threads * list_elements());
    const Workspace counts = workspace_of<std::int32_t>(threads * pool_.K);
    parallel_for(chunks, threads, [&](Index chunk, int thread) {
      T* partial = partials.as<T>() + chunk * size;
      std::memset(static_cast<void*>(partial), 0, static_cast<std::size_t>(size) * sizeof(T));
      const Lists to{lists.as<Nonzero>() + thread * list_elements(), counts.as<std::int32_t>() + thread * pool_.K};
      const Range mine = part(bands_.count(), chunks, chunk);
      for (Index i = mine.begin; i < mine.end; ++i) {
        add_band(bands_[i], scratch.as<T>() + thread * bands_.patch_elements(), to, partial, partial + dw_size);
      }
    });
    reduce(partials.as<T>(), chunks, size, dw_size, dw, db);
  }

 private:
  static constexpr Index kPatch = 10 * 1024;                     // elements: of x, most of which L1 holds
  static constexpr Index kMostPartialElements = Index{1} << 21;  // of all chunks together
  static constexpr Index kPlaces = 256;
  template <int NV>
  static constexpr int kRunsTogether = clamp(kMostSums / NV, 1, 3);

  struct Nonzero {
    T g;
    std::int32_t offset;  // of its patch
  };

  struct Lists {
    Nonzero* entries;  // a list for each k, capacity() apart
    std::int32_t* counts;
  };

  Index capacity() const { return bands_.rows() * bands_.cols() / pool_.area(); }
  Index list_elements() const { return pool_.K * capacity(); }

  void add_band(const Band& band, T* scratch, const Lists& lists, T* dw, T* db) const {
    const T* patch = bands_.gather(conv_.input, band, scratch);
    make_lists(band, lists, db);
    const RunPieces<T> pieces(segments_.begin()->length);
    for (Index i = 0; i < pieces.count; ++i) {
      const Range piece = pieces.piece(i);
      with_run(piece.end - piece.begin, [&]<int NV>() {
        constexpr int kRuns = kRunsTogether<NV>;
        Index s = 0;
        for (; s + kRuns <= segments_.count(); s += kRuns) add_lists<NV, kRuns>(patch, piece.begin, s, lists, dw);
        for (; s < segments_.count(); ++s) add_lists<NV, 1>(patch, piece.begin, s, lists, dw);
      });
    }
  }

  void make_lists(const Band& band, const Lists& lists, T* db) const {
    const Index pixel_row = bands_.output_row(), pixel = bands_.output_pixel();
    std::int32_t place_offsets[kPlaces] = {};
    for (Index i = 0; i < pool_.area(); ++i) {
      place_offsets[i] = static_cast<std::int32_t>(i / pool_.pool_w * pixel_row + i % pool_.pool_w * pixel);
    }
    for (Index k = 0; k < pool_.K; ++k) lists.counts[k] = 0;
    const Index room = capacity();
    for (Index i = 0; i < band.rows / pool_.pool_h; ++i)
      for (Index j = 0; j < band.cols / pool_.pool_w; ++j) {
        const Index row = band.n * pool_.rows() + band.p / pool_.pool_h + i, col = band.q / pool_.pool_w + j;
        const T* dy = dy_ + (row * pool_.cols() + col) * pool_.K;
        const std::uint8_t* argmax = argmax_ + (row * pool_.cols() + col) * pool_.K;
        const auto corner = static_cast<std::int32_t>(i * pool_.pool_h * pixel_row + j * pool_.pool_w * pixel);
        Index k = 0;
        if constexpr (sizeof(T) == sizeof(std::int32_t)) {
          const Index whole = pool_.area() <= 4 ? pool_.K / kLanes<T> * kLanes<T> : 0;
          for (; k < whole; k += kLanes<T>)
            append(dy + k, argmax + k, place_offsets, corner, lists.entries + k * room, room, lists.counts + k);
        }
        for (; k < pool_.K; ++k) {
          lists.entries[k * room + lists.counts[k]] = {dy[k], corner + place_offsets[argmax[k]]};
          lists.counts[k] += argmax[k] != kDead;
        }
        add_alive(dy, argmax, db);
      }
  }

  // As many lists as a vector has lanes, `room` apart, each by one window of up to four places. All entries are made at
  // once and written, also those of the dead, which the next one will overwrite.
  static void append(const T* dy, const std::uint8_t* argmax, const std::int32_t* offsets, std::int32_t corner,
                     Nonzero* lists, Index room, std::int32_t* counts) {
    constexpr int kAll = kLanes<T>;
    static_assert(sizeof(Nonzero) == sizeof(std::uint64_t));
    const auto places = widen_bytes<T>(argmax);
    T four[4];
    std::memcpy(four, offsets, sizeof(four));
    const Vec<T> g = load(dy),
                 at = reinterpret_cast<Vec<T>>(reinterpret_cast<Lanes<Vec<T>>>(pick<T>(four, places)) + corner);
    std::uint64_t entries[kAll];
    [&]<int... i>(std::integer_sequence<int, i...>) {
      const Vec<T> first = __builtin_shufflevector(g, at, (i / 2 + i % 2 * kAll)...);
      const Vec<T> second = __builtin_shufflevector(g, at, (i / 2 + i % 2 * kAll + kAll / 2)...);
      std::memcpy(entries, &first, sizeof(first));
      std::memcpy(entries + kAll / 2, &second, sizeof(second));
    }(std::make_integer_sequence<int, kAll>());
#pragma GCC unroll 16
    for (int i = 0; i < kAll; ++i) std::memcpy(lists + i * room + counts[i], entries + i, sizeof(Nonzero));
    Lanes<Vec<T>> count;
    std::memcpy(&count, counts, sizeof(count));
    count -= places != kDead;
    std::memcpy(counts, &count, sizeof(count));
  }

  // db[k] += dy[k] where it is alive
  void add_alive(const T* dy, const std::uint8_t* argmax, T* db) const {
    Index k = 0;
    for (; k + kLanes<T> <= pool_.K; k += kLanes<T>) {
      store(db + k, load(db + k) + (is_place<Vec<T>>(argmax + k, kDead, dy) ? Vec<T>{} : load(dy + k)));
    }
    for (; k < pool_.K; ++k) db[k] += argmax[k] == kDead ? T(0) : dy[k];
  }

  // To the gradient of the runs from the s-th segment on, in each its vectors from `begin` on.
  template <int NV, int Runs>
  [[gnu::noinline]] void add_lists(const T* patch, Index begin, Index s, const Lists& lists, T* dw) const {
    const Index length = segments_.begin()->length, at = begin * kLanes<T>;
    const T* runs[Runs];
    for (int run = 0; run < Runs; ++run) runs[run] = patch + segments_.begin()[s + run].offset + at;
    for (Index k = 0; k < pool_.K; ++k) {
      add_list<NV, Runs>(runs, lists.entries + k * capacity(), lists.counts[k],
                         dw + k * conv_.depth() + s * length + at, length, length - at);
    }
  }

  template <int NV, int Runs>
  [[gnu::always_inline]] static void add_list(const T* const* runs, const Nonzero* list, Index count, T* to,
                                              Index length, Index width) {
    RunSums<T, NV, Runs> sums;
    constexpr int kTogether = RunSums<T, NV, Runs>::kChainsEach;
    Index i = 0;
    for (; i + kTogether <= count; i += kTogether)
#pragma GCC unroll 4
      for (int chain = 0; chain < kTogether; ++chain) sums.add(chain, list[i + chain].g, runs, list[i + chain].offset);
    for (; i < count; ++i) sums.add(0, list[i].g, runs, list[i].offset);
    sums.join();
    const Index last = width - (NV - 1) * kLanes<T>;
#pragma GCC unroll 3
    for (int run = 0; run < Runs; ++run)
#pragma GCC unroll 12
      for (int v = 0; v < NV; ++v) {
        T* at = to + run * length + v * kLanes<T>;
        if (v + 1 < NV || last >= kLanes<T>) {
          store(at, load(at) + sums.acc[0][run][v]);
        } else {
          store_part(at, load_part(at, static_cast<int>(last)) + sums.acc[0][run][v], static_cast<int>(last));
        }
      }
  }

  void reduce(const T* partials, Index chunks, Index size, Index dw_size, T* dw, T* db) const {
    parallel_ranges(dw_size, kGrain, [&](Index begin, Index end) {
      add_pieces(partials + begin, chunks, size, end - begin, dw + begin);
    });
    for (Index k = 0; k < pool_.K; ++k) {
      double sum = 0;
      for (Index c = 0; c < chunks; ++c) sum += static_cast<double>(partials[dw_size + k + c * size]);
      db[k] = static_cast<T>(sum);
    }
  }

  const T* dy_;
  const std::uint8_t* argmax_;
  PoolGrid pool_;
  Conv2dShape shape_;
  DirectConv<T> conv_;
  Bands bands_;
  Segments<T> segments_;
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
