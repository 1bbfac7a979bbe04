// dw[k,r,s,c] = sum_{n,p,q} dy[n,p,q,k] * x[n, p*stride_h + r*dil_h - pad_top, q*stride_w + s*dil_w - pad_left, c]
//
// A sum of outer products over pixels: tiles of rows (broadcast) by vectors, accumulated in registers over a band
// (band.hpp) and in memory over bands. Either side may be the vectors:
//   kAlongX: rows are k, vectors run along the taps and channels of x: what is summed is dw as it stands in memory;
//   kAlongY: rows are the taps and channels, vectors run along k: for few input channels. Transposed at the end.
// The one that wastes fewer lanes is taken. Depthwise has tiles of taps by channels.
// Threads: the bands are cut into chunks, a number fixed by the shape, each summed into a partial dw of its own; the
// partial sums are added in order. Where dw is large (Linear) there is one chunk, and the rows are shared out instead.
#include "core/dispatch.hpp"
#include "cpu/conv2d.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

inline constexpr Index kPatchTarget = 6 * 1024;        // elements: a band of x and one of dy share L2 with dw
inline constexpr Index kMostPartialElements = 1 << 21;  // of all chunks together

enum class Layout { kAlongX, kAlongY, kDepthwise };

constexpr Index least(Index a, Index b) { return a < b ? a : b; }

template <class T>
struct Problem {
  const T *x, *dy;
  Conv2dShape shape;
  Grid grid;
  Index C, K;  // of a group
  Index taps;
  Layout layout;

  Index depth() const { return taps * C; }
  Index padded_K() const { return Blocks<T>(K).padded(); }
  Index padded_channels() const { return Blocks<T>(shape.groups).padded(); }

  // One partial sum: kAlongX (groups * K, depth), kAlongY (groups, depth, padded K), depthwise (taps, padded channels).
  Index partial_elements() const {
    switch (layout) {
      case Layout::kAlongX: return shape.K * depth();
      case Layout::kAlongY: return shape.groups * depth() * padded_K();
      case Layout::kDepthwise: return taps * padded_channels();
    }
    return 0;
  }
};

// Multiply-adds in whole tiles, for each layout, is the measure; the run of x is what one segment holds.
template <class T>
Layout choose_layout(const Conv2dShape& s, Index C, Index K) {
  if (is_depthwise(s)) return Layout::kDepthwise;
  const auto up = [](Index n, Index unit) { return ceil_div(n, unit) * unit; };
  constexpr Index kRows = kTileRows<Blocks<T>::kMost>;
  const bool merged = s.groups == 1 && s.window.dil_w == 1;
  const Index run = merged ? s.window.kernel_w * C : C;
  const Index runs = s.window.kernel_h * s.window.kernel_w * C / run;
  const Index along_x = runs * up(run, kLanes<T>) * up(K, kRows), along_y = up(runs * run, kRows) * up(K, kLanes<T>);
  return along_x <= along_y ? Layout::kAlongX : Layout::kAlongY;
}

// A band of x and of dy as the tiles read them.
template <class T>
struct Operands {
  const T* x;
  Index x_row, x_pixel;
  const T* dy;
  Index dy_row, dy_pixel;
  Index rows, cols;
};

// acc rows and vectors loaded from `to`, the band added, and stored back.
template <class T, int NV>
void add_tile(const T* const* a, Index a_row, Index a_pixel, const T* b, Index b_row, Index b_pixel, Index rows,
              Index cols, T* const* to, int used, Index width) {
  constexpr int MR = kTileRows<NV>;
  Tile<T, MR, NV> tile;
  tile.load_from(to, width);
  const T* p[MR];
  for (int m = 0; m < MR; ++m) p[m] = a[m];
  for (Index i = 0; i < rows; ++i, b += b_row) {
    tile.add_outer(p, a_pixel, b, b_pixel, cols);
    for (int m = 0; m < MR; ++m) p[m] += a_row;
  }
  tile.store_to(to, used, width);
}

// kAlongX: units are the tiles of k of every group.
template <class T>
void add_along_x(const Problem<T>& pr, const Operands<T>& in, const Segment* segments, Index count, T* partial,
                 Range units) {
  constexpr Index kRows = kTileRows<Blocks<T>::kMost>;
  const Index tiles = ceil_div(pr.K, kRows);
  Index l = 0;
  for (const Segment* s = segments; s != segments + count; l += s->length, ++s) {
    const Blocks<T> blocks(s->length);
    for (Index i = 0; i < blocks.count; ++i) {
      const Range block = blocks.block(i);
      const Index l0 = block.begin * kLanes<T>;
      with_vectors(static_cast<int>(block.end - block.begin), [&]<int NV>() {
        constexpr int MR = kTileRows<NV>;
        for (Index u = units.begin; u < units.end; ++u) {
          const Index g = u / tiles, k_end = least(pr.K, (u % tiles + 1) * kRows);
          for (Index k = u % tiles * kRows; k < k_end; k += MR) {
            const T* a[MR];
            T* to[MR];
            for (int m = 0; m < MR; ++m) {
              const Index row = g * pr.K + least(k + m, k_end - 1);
              a[m] = in.dy + row;
              to[m] = partial + row * pr.depth() + l + l0;
            }
            add_tile<T, NV>(a, in.dy_row, in.dy_pixel, in.x + g * pr.C + s->offset + l0, in.x_row, in.x_pixel,
                            in.rows, in.cols, to, static_cast<int>(least(MR, k_end - k)), s->length - l0);
          }
        }
      });
    }
  }
}

// kAlongY: units are the blocks of k of every group. `offsets` are those of x for each tap and channel.
template <class T>
void add_along_y(const Problem<T>& pr, const Operands<T>& in, const Index* offsets, T* partial, Range units) {
  const Blocks<T> blocks(pr.K);
  for (Index u = units.begin; u < units.end; ++u) {
    const Index g = u / blocks.count;
    const Range block = blocks.block(u % blocks.count);
    const Index k0 = block.begin * kLanes<T>;
    with_vectors(static_cast<int>(block.end - block.begin), [&]<int NV>() {
      constexpr int MR = kTileRows<NV>;
      for (Index l = 0; l < pr.depth(); l += MR) {
        const T* a[MR];
        T* to[MR];
        for (int m = 0; m < MR; ++m) {
          const Index row = least(l + m, pr.depth() - 1);
          a[m] = in.x + g * pr.C + offsets[row];
          to[m] = partial + (g * pr.depth() + row) * pr.padded_K() + k0;
        }
        add_tile<T, NV>(a, in.x_row, in.x_pixel, in.dy + g * pr.K + k0, in.dy_row, in.dy_pixel, in.rows, in.cols, to,
                        static_cast<int>(least(MR, pr.depth() - l)), NV * kLanes<T>);
      }
    });
  }
}

// Depthwise: units are the vectors of channels.
template <class T>
void add_depthwise(const Problem<T>& pr, const Operands<T>& in, const Index* offsets, T* partial, Range units) {
  constexpr int MR = kMaxTileRows;
  for (Index u = units.begin; u < units.end; ++u) {
    const Index c0 = u * kLanes<T>;
    for (Index t = 0; t < pr.taps; t += MR) {
      const int used = static_cast<int>(least(MR, pr.taps - t));
      Vec<T> acc[MR] = {};
      const T* x[MR];
      for (int m = 0; m < MR; ++m) x[m] = in.x + c0 + offsets[least(t + m, pr.taps - 1)];
      for (Index i = 0; i < in.rows; ++i)
        for (Index j = 0; j < in.cols; ++j) {
          const Vec<T> g = load(in.dy + c0 + i * in.dy_row + j * in.dy_pixel);
#pragma GCC unroll 8
          for (int m = 0; m < MR; ++m) acc[m] += g * load(x[m] + i * in.x_row + j * in.x_pixel);
        }
      for (int m = 0; m < used; ++m) {
        T* to = partial + (t + m) * pr.padded_channels() + c0;
        store(to, load(to) + acc[m]);
      }
    }
  }
}

template <class T>
Index unit_count(const Problem<T>& pr) {
  switch (pr.layout) {
    case Layout::kAlongX: return pr.shape.groups * ceil_div(pr.K, kTileRows<Blocks<T>::kMost>);
    case Layout::kAlongY: return pr.shape.groups * Blocks<T>(pr.K).count;
    case Layout::kDepthwise: return ceil_div(pr.shape.groups, kLanes<T>);
  }
  return 1;
}

// dy's band with pixels padded to whole vectors, where the tiles would read past the last one.
template <class T>
const T* pad_dy(const Problem<T>& pr, const Band& band, T* scratch, Index padded) {
  const Index K = pr.shape.K;
  for (Index p = 0; p < band.rows; ++p)
    for (Index q = 0; q < band.cols; ++q) {
      const T* from = pr.dy + ((band.n * pr.grid.P + band.p + p) * pr.grid.Q + band.q + q) * K;
      T* to = scratch + (p * band.cols + q) * padded;
      std::memcpy(to, from, static_cast<std::size_t>(K) * sizeof(T));
      for (Index k = K; k < padded; ++k) to[k] = T(0);
    }
  return scratch;
}

// Everything about a problem that does not change from band to band.
template <class T>
struct Plan {
  const Problem<T>& pr;
  Bands bands;
  Index chunks, splits;
  Index padded_dy;  // elements of a pixel of dy in scratch; 0: it is read in place
  const Segment *segments, *in_place_segments;
  Index segment_count, in_place_count;
  const Index *offsets, *in_place_offsets;

  Index dy_elements() const { return padded_dy * bands.rows() * bands.cols() + kVectorSlack; }
  Index scratch_elements() const { return bands.patch_elements() + dy_elements(); }

  void add_band(const Band& band, T* scratch, T* partial, Range units) const {
    const Grid& g = pr.grid;
    const Patch<T> patch = bands.gather(pr.x, band, scratch, must_gather());
    Operands<T> in{patch.origin, g.stride_h * patch.row_stride, g.stride_w * g.C, nullptr, 0, 0, band.rows, band.cols};
    if (padded_dy > 0) {
      in.dy = pad_dy(pr, band, scratch + bands.patch_elements(), padded_dy);
      in.dy_row = band.cols * padded_dy;
      in.dy_pixel = padded_dy;
    } else {
      in.dy = pr.dy + ((band.n * g.P + band.p) * g.Q + band.q) * pr.shape.K;
      in.dy_row = g.Q * pr.shape.K;
      in.dy_pixel = pr.shape.K;
    }
    const bool gathered = patch.gathered;
    switch (pr.layout) {
      case Layout::kAlongX:
        add_along_x(pr, in, gathered ? segments : in_place_segments, gathered ? segment_count : in_place_count,
                    partial, units);
        break;
      case Layout::kAlongY: add_along_y(pr, in, gathered ? offsets : in_place_offsets, partial, units); break;
      case Layout::kDepthwise: add_depthwise(pr, in, gathered ? offsets : in_place_offsets, partial, units); break;
    }
  }

  // Whole vectors of x are read, which must not run past the end of the array.
  bool must_gather() const {
    const Index run = pr.layout == Layout::kAlongX ? segments->length : pr.grid.C;
    return pr.layout != Layout::kAlongY && run % kLanes<T> != 0;
  }
};

// Offsets of every tap and channel (depthwise: every tap) in a patch with this row stride.
template <class T>
void make_offsets(const Problem<T>& pr, const Tap* taps, Index row_stride, Index* offsets) {
  const Index channels = pr.layout == Layout::kDepthwise ? 1 : pr.C;
  for (Index t = 0; t < pr.taps; ++t)
    for (Index c = 0; c < channels; ++c)
      *offsets++ = (taps[t].row - pr.grid.first_row) * row_stride + (taps[t].col - pr.grid.first_col) * pr.grid.C + c;
}

// Partial sums in order, to dw as (K, taps, C).
template <class T>
void reduce(const Problem<T>& pr, const T* partial, Index chunks, T* dw) {
  const Index size = pr.shape.K * pr.depth(), step = pr.partial_elements();
  parallel_ranges(size, kGrain, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const Index k = i / pr.depth(), l = i % pr.depth();
      Index at = i;
      if (pr.layout == Layout::kAlongY) at = (k / pr.K * pr.depth() + l) * pr.padded_K() + k % pr.K;
      if (pr.layout == Layout::kDepthwise) at = l * pr.padded_channels() + k;
      T sum = partial[at];
      for (Index s = 1; s < chunks; ++s) sum += partial[at + s * step];
      dw[i] = sum;
    }
  });
}

template <class T>
void run_wgrad(const Problem<T>& pr, T* dw) {
  const Bands bands(pr.grid, kPatchTarget);
  const Index elements = pr.partial_elements(), units = unit_count(pr);
  const Index chunks = least(least(bands.count(), kTasksWanted), 1 + kMostPartialElements / (elements + 1));
  const Index splits = least(units, ceil_div(kTasksWanted / 2, chunks));
  const Index lanes = kLanes<T>;
  const bool pad = pr.layout != Layout::kAlongX && pr.K * pr.shape.groups % lanes != 0;

  const Workspace taps_memory = workspace_of<Tap>(pr.taps), segments_memory = workspace_of<Segment>(2 * pr.taps),
                  offsets_memory = workspace_of<Index>(2 * pr.depth());
  Tap* taps = taps_memory.as<Tap>();
  forward_taps(pr.shape.window, taps);
  Segment* segments = segments_memory.as<Segment>();
  Index* offsets = offsets_memory.as<Index>();
  const DirectConv<T> conv{.input = pr.x, .grid = pr.grid, .groups = pr.shape.groups, .C = pr.C, .K = pr.K,
                           .taps = taps, .tap_count = pr.taps, .depthwise = false, .panels = nullptr, .bias = nullptr,
                           .relu = false};
  const Index in_place_stride = pr.grid.W * pr.grid.C;
  const Index segment_count = make_segments(conv, bands.gathered_row_stride(), segments);
  const Index in_place_count = make_segments(conv, in_place_stride, segments + pr.taps);
  make_offsets(pr, taps, bands.gathered_row_stride(), offsets);
  make_offsets(pr, taps, in_place_stride, offsets + pr.depth());
  const Index padded_dy = pad ? ceil_div(pr.shape.K, lanes) * lanes + lanes : 0;
  const Plan<T> plan{pr, bands, chunks, splits, padded_dy, segments, segments + pr.taps, segment_count, in_place_count,
                     offsets, offsets + pr.depth()};

  const bool direct = chunks == 1 && pr.layout == Layout::kAlongX;
  const int threads = num_threads();
  const Workspace scratch = workspace_of<T>(threads * plan.scratch_elements());
  const Workspace partials = workspace_of<T>(direct ? 1 : chunks * elements);
  T* partial = direct ? dw : partials.as<T>();
  std::memset(static_cast<void*>(partial), 0, static_cast<std::size_t>(chunks * elements) * sizeof(T));
  parallel_for(chunks * splits, threads, [&](Index task, int thread) {
    const Range mine = part(bands.count(), chunks, task / splits), my_units = part(units, splits, task % splits);
    for (Index i = mine.begin; i < mine.end; ++i) {
      plan.add_band(bands[i], scratch.as<T>() + thread * plan.scratch_elements(),
                    partial + task / splits * elements, my_units);
    }
  });
  if (!direct) reduce(pr, partial, chunks, dw);
}

void wgrad(const Conv2dWgradArgs& a) {
  const Conv2dShape s = flatten_pointwise(a.shape);
  with_dtype(a.dtype, [&]<class T>(T) {
    const Index C = s.C / s.groups, K = s.K / s.groups, taps = s.window.kernel_h * s.window.kernel_w;
    T* dw = static_cast<T*>(a.dw);
    if (s.N == 0) {
      std::memset(static_cast<void*>(dw), 0, static_cast<std::size_t>(s.K * taps * C) * sizeof(T));
      return;
    }
    run_wgrad(Problem<T>{static_cast<const T*>(a.x), static_cast<const T*>(a.dy), s, forward_grid(s), C, K, taps,
                         choose_layout<T>(s, C, K)}, dw);
  });
}

const Register kWgrad{conv2d_wgrad, kIsa, wgrad};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
