// dw[k,r,s,c] = sum_{n,p,q} dy[n,p,q,k] * x[n, p*stride_h + r*dil_h - pad_top, q*stride_w + s*dil_w - pad_left, c]
// dy (N,P,Q,K), x (N,H,W,C), dw (K,R,S,C/groups); any stride, padding, dilation and groups.
// Work: a sum of outer products over pixels: tiles of rows (broadcast) by vectors, accumulated in registers over a
// band (band.hpp) and in memory over bands. Either side may be the vectors:
//   kAlongX: rows are k, vectors run along the taps and channels of x: what is summed is dw as it stands in memory;
//   kAlongY: rows are the taps and channels, vectors run along k: for few input channels. Transposed at the end.
// The one that wastes fewer lanes is taken. Depthwise has tiles of taps by channels.
// Elsewhere: what choice.hpp gives to winograd_wgrad.hpp, gathered_wgrad.hpp, narrow_wgrad.hpp, dense.hpp or
// depthwise.hpp.
// Threads: the bands are cut into chunks, a number fixed by the shape, each summed into a partial dw of its own.
// Where dw is large there is one chunk, and the rows are shared out instead.
// Numerics: sums in T, a chunk's pixels in order, then the chunks in order, or as those headers say. Overwrites.
#include "core/dispatch.hpp"
#include "cpu/choice.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

inline constexpr Index kPatchTarget = 6 * 1024;         // elements: a band of x and one of dy share L2 with dw
inline constexpr Index kMostPartialElements = 1 << 21;  // of all chunks together

enum class Layout { kAlongX, kAlongY, kDepthwise };

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

// Whether kAlongY has tiles of nine rows: the depth of a 3x3 kernel in whole ones.
template <class T>
bool takes_nine(Index depth, Index K) {
  const Blocks<T> blocks(K);
  return STAPES_VECTOR_BYTES == 64 && ceil_div(blocks.vectors, blocks.count) < kMaxTileVectors && depth % 9 == 0;
}

// Multiply-adds in whole tiles, for each layout, is the measure; the run of x is what one segment holds.
template <class T>
Layout choose_layout(const Conv2dShape& s, Index C, Index K) {
  if (is_depthwise(s)) return Layout::kDepthwise;
  const bool merged = s.groups == 1 && s.window.dil_w == 1;
  const Index run = merged ? s.window.kernel_w * C : C;
  const Index runs = s.window.kernel_h * s.window.kernel_w * C / run;
  const Index along_x = runs * round_up(run, kLanes<T>) * round_up(K, Blocks<T>(run).rows());
  const Index depth = runs * run, rows = takes_nine<T>(depth, K) ? 9 : Blocks<T>(K).rows();
  const Index along_y = round_up(depth, rows) * round_up(K, kLanes<T>);
  return along_x <= along_y ? Layout::kAlongX : Layout::kAlongY;
}

// A band of x and of dy as the tiles read them.
template <class T>
struct Operands {
  const T *x, *dy;
  Index dy_row;
  Index rows, cols;
};

// Several bands: a tile goes over all of them between loading its sums and storing them.
inline constexpr int kMostBands = 8;
template <class T>
struct BandGroup {
  Operands<T> band[kMostBands];
  int count;
  Index x_row, x_pixel, dy_pixel;  // steps from output to output
};

// sums[m] (`width` elements of it) += the products of rows a + a_offsets[m] with vectors b + b_offset, over a group;
// the rows are of dy, or of x. Not inlined: in a function of its own the inner loop's pointers stay in registers.
template <class T, int MR, int NV, bool kRowsOfDy>
[[gnu::noinline]] void add_tile(const BandGroup<T>& group, const Index* a_offsets, Index b_offset, T* const* sums,
                                Index used, Index width) {
  const Index a_pixel = kRowsOfDy ? group.dy_pixel : group.x_pixel,
              b_pixel = kRowsOfDy ? group.x_pixel : group.dy_pixel;
  Tile<T, MR, NV> tile;
  tile.load_from(sums, width);
  for (int i = 0; i < group.count; ++i) {
    const Operands<T>& in = group.band[i];
    const Index a_row = kRowsOfDy ? in.dy_row : group.x_row, b_row = kRowsOfDy ? group.x_row : in.dy_row;
    const T* a[MR];
    for (int m = 0; m < MR; ++m) a[m] = (kRowsOfDy ? in.dy : in.x) + a_offsets[m];
    const T* b = (kRowsOfDy ? in.x : in.dy) + b_offset;
    for (Index row = 0; row < in.rows; ++row, b += b_row) {
      tile.add_outer(a, a_pixel, b, b_pixel, in.cols);
      for (int m = 0; m < MR; ++m) a[m] += a_row;
    }
  }
  tile.store_to(sums, static_cast<int>(used), width);
}

// kAlongX: units are kUnit k of a group.
inline constexpr Index kUnit = kTileRows<kMaxTileVectors>;

// f(g, ks) for the groups, and the k of each, that the units are of.
template <class T, class F>
void for_groups(const Problem<T>& pr, Range units, const F& f) {
  const Index in_group = ceil_div(pr.K, kUnit);
  for (Index u = units.begin; u < units.end;) {
    const Index g = u / in_group, end = least(units.end, (g + 1) * in_group);
    f(g, Range{(u - g * in_group) * kUnit, least(pr.K, (end - g * in_group) * kUnit)});
    u = end;
  }
}

template <class T>
void add_along_x(const Problem<T>& pr, const BandGroup<T>& in, const Segments<T>& segments, T* partial, Range units) {
  Index l = 0;
  for (const Segment* s = segments.begin(); s != segments.begin() + segments.count(); l += s->length, ++s) {
    const Blocks<T> blocks(s->length);
    for (Index i = 0; i < blocks.count; ++i) {
      const Range block = blocks.block(i);
      const Index l0 = block.begin * kLanes<T>;
      with_vectors(static_cast<int>(block.end - block.begin), [&]<int NV>() {
        constexpr int MR = kTileRows<NV>;
        for_groups(pr, units, [&](Index g, Range ks) {
          for (Index k = ks.begin; k < ks.end; k += MR) {
            Index rows[MR];
            T* sums[MR];
            for (int m = 0; m < MR; ++m) {
              rows[m] = g * pr.K + least(k + m, ks.end - 1);
              sums[m] = partial + rows[m] * pr.depth() + l + l0;
            }
            add_tile<T, MR, NV, true>(in, rows, g * pr.C + s->offset + l0, sums, least(MR, ks.end - k), s->length - l0);
          }
        });
      });
    }
  }
}

// kAlongY: units are the blocks of k of every group. `offsets` are those of x for each tap and channel.
template <class T>
void add_along_y(const Problem<T>& pr, const BandGroup<T>& in, const Index* offsets, T* partial, Range units) {
  const Blocks<T> blocks(pr.K);
  for (Index u = units.begin; u < units.end; ++u) {
    const Index g = u / blocks.count;
    const Range block = blocks.block(u % blocks.count);
    const Index k0 = block.begin * kLanes<T>;
    const auto add_rows = [&]<int MR, int NV>() {
      for (Index l = 0; l < pr.depth(); l += MR) {
        Index rows[MR];
        T* sums[MR];
        for (int m = 0; m < MR; ++m) {
          const Index row = least(l + m, pr.depth() - 1);
          rows[m] = g * pr.C + offsets[row];
          sums[m] = partial + (g * pr.depth() + row) * pr.padded_K() + k0;
        }
        add_tile<T, MR, NV, false>(in, rows, g * pr.K + k0, sums, least(MR, pr.depth() - l), NV * kLanes<T>);
      }
    };
    with_vectors(static_cast<int>(block.end - block.begin), [&]<int NV>() {
      if constexpr (STAPES_VECTOR_BYTES == 64 && NV < kMaxTileVectors) {
        if (takes_nine<T>(pr.depth(), pr.K)) return add_rows.template operator()<9, NV>();
      }
      add_rows.template operator()<kTileRows<NV>, NV>();
    });
  }
}

// Depthwise: units are the vectors of channels.
template <class T>
void add_depthwise(const Problem<T>& pr, const BandGroup<T>& group, const Index* offsets, T* partial, Range units) {
  constexpr int MR = 8;
  for (Index u = units.begin; u < units.end; ++u) {
    const Index c0 = u * kLanes<T>;
    for (Index t = 0; t < pr.taps; t += MR) {
      Vec<T> acc[MR] = {};
      for (int b = 0; b < group.count; ++b) {
        const Operands<T>& in = group.band[b];
        const T* x[MR];
        for (int m = 0; m < MR; ++m) x[m] = in.x + c0 + offsets[least(t + m, pr.taps - 1)];
        for (Index i = 0; i < in.rows; ++i)
          for (Index j = 0; j < in.cols; ++j) {
            const Vec<T> g = load(in.dy + c0 + i * in.dy_row + j * group.dy_pixel);
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m) acc[m] += g * load(x[m] + i * group.x_row + j * group.x_pixel);
          }
      }
      for (Index m = 0; m < least(MR, pr.taps - t); ++m) {
        T* to = partial + (t + m) * pr.padded_channels() + c0;
        store(to, load(to) + acc[m]);
      }
    }
  }
}

template <class T>
Index unit_count(const Problem<T>& pr) {
  switch (pr.layout) {
    case Layout::kAlongX: return pr.shape.groups * ceil_div(pr.K, kUnit);
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
  const Bands& bands;
  const Segments<T>& segments;
  const Index* offsets;
  Index padded_dy;  // elements of a pixel of dy in scratch; 0: it is read in place
  int group;        // bands taken together

  Index dy_elements() const { return padded_dy > 0 ? padded_dy * bands.rows() * bands.cols() + kVectorSlack : 0; }
  Index band_elements() const { return bands.patch_elements() + dy_elements(); }
  Index scratch_elements() const { return group * band_elements(); }

  Operands<T> operands(const Band& band, T* scratch) const {
    const Grid& g = pr.grid;
    Operands<T> in{bands.gather(pr.x, band, scratch), nullptr, 0, band.rows, band.cols};
    if (padded_dy > 0) {
      in.dy = pad_dy(pr, band, scratch + bands.patch_elements(), padded_dy);
      in.dy_row = band.cols * padded_dy;
    } else {
      in.dy = pr.dy + ((band.n * g.P + band.p) * g.Q + band.q) * pr.shape.K;
      in.dy_row = g.Q * pr.shape.K;
    }
    return in;
  }

  // Bands [first, last), at most `group`, for the given units.
  void add_bands(Index first, Index last, T* scratch, T* partial, Range units) const {
    BandGroup<T> in{{},
                    static_cast<int>(last - first),
                    bands.output_row(),
                    bands.output_pixel(),
                    padded_dy > 0 ? padded_dy : pr.shape.K};
    for (int i = 0; i < in.count; ++i) in.band[i] = operands(bands[first + i], scratch + i * band_elements());
    switch (pr.layout) {
      case Layout::kAlongX: add_along_x(pr, in, segments, partial, units); break;
      case Layout::kAlongY: add_along_y(pr, in, offsets, partial, units); break;
      case Layout::kDepthwise: add_depthwise(pr, in, offsets, partial, units); break;
    }
  }
};

// Offsets of every tap and channel (depthwise: every tap) in a patch.
template <class T>
void make_offsets(const Problem<T>& pr, const Bands& bands, Index* offsets) {
  const Index channels = pr.layout == Layout::kDepthwise ? 1 : pr.C;
  for (Index t = 0; t < pr.taps; ++t)
    for (Index c = 0; c < channels; ++c) *offsets++ = bands.tap_offset(t) + c;
}

// Partial sums in order, to dw as (K, taps, C).
template <class T>
void reduce(const Problem<T>& pr, const T* partial, Index chunks, T* dw) {
  const Index elements = pr.partial_elements(), depth = pr.depth();
  const bool in_place = pr.layout == Layout::kAlongX;
  const Workspace sums = workspace_of<T>(in_place ? 0 : elements);
  T* to = in_place ? dw : sums.as<T>();
  parallel_ranges(elements, kGrain, [&](Index begin, Index end) {
    add_pieces(partial + begin, chunks, elements, end - begin, to + begin);
  });
  if (in_place) return;
  const bool depthwise = pr.layout == Layout::kDepthwise;
  parallel_for(pr.shape.K, [&](Index k) {
    const T* from = to + (depthwise ? k : k / pr.K * depth * pr.padded_K() + k % pr.K);
    const Index step = depthwise ? pr.padded_channels() : pr.padded_K();
    for (Index l = 0; l < depth; ++l) dw[k * depth + l] = from[l * step];
  });
}

// Small images: several bands share one load and store of the sums.
int group_size(const Bands& bands) {
  constexpr Index kPixels = 256;
  return static_cast<int>(least(kMostBands, ceil_div(kPixels, bands.rows() * bands.cols())));
}

// Whole vectors of x are read, which must not run past the end of the array.
template <class T>
bool needs_slack(const Problem<T>& pr) {
  const bool merged = pr.shape.groups == 1 && pr.shape.window.dil_w == 1;
  const Index run = pr.layout == Layout::kAlongX && merged ? pr.shape.window.kernel_w * pr.C : pr.C;
  if (pr.layout == Layout::kDepthwise) return pr.shape.groups % kLanes<T> != 0;
  return pr.layout == Layout::kAlongX && run % kLanes<T> != 0;
}

// Adds up the bands of each chunk in a partial sum, tasks being chunks times splits of the units.
template <class T>
void accumulate(const Plan<T>& plan, Index chunks, Index splits, T* partial) {
  const Index elements = plan.pr.partial_elements(), units = unit_count(plan.pr), bands = plan.bands.count();
  const int threads = num_threads();
  const Workspace scratch = workspace_of<T>(threads * plan.scratch_elements());
  std::memset(static_cast<void*>(partial), 0, static_cast<std::size_t>(chunks * elements) * sizeof(T));
  parallel_for(chunks * splits, threads, [&](Index task, int thread) {
    const Range mine = part(bands, chunks, task / splits), my_units = part(units, splits, task % splits);
    for (Index i = mine.begin; i < mine.end; i += plan.group) {
      plan.add_bands(i, least(i + plan.group, mine.end), scratch.as<T>() + thread * plan.scratch_elements(),
                     partial + task / splits * elements, my_units);
    }
  });
}

template <class T>
void run_wgrad(const Problem<T>& pr, T* dw) {
  const Workspace offsets = workspace_of<Index>(pr.depth());
  const Bands bands(pr.grid, kPatchTarget, needs_slack(pr));
  const DirectConv<T> conv{
      .input = pr.x, .grid = pr.grid, .groups = pr.shape.groups, .C = pr.C, .K = pr.K, .tap_count = pr.taps};
  const Segments<T> segments(conv, bands);
  make_offsets(pr, bands, offsets.as<Index>());
  const Index lanes = kLanes<T>;
  const bool pad = pr.layout != Layout::kAlongX && (pr.K % lanes != 0 || pr.shape.K % lanes != 0);
  const Plan<T> plan{
      pr, bands, segments, offsets.as<Index>(), pad ? round_up(pr.shape.K, lanes) + lanes : 0, group_size(bands)};

  const Index elements = pr.partial_elements();
  const Index chunks = least(least(bands.count(), kTasksWanted), 1 + kMostPartialElements / (elements + 1));
  const Index splits = least(unit_count(pr), ceil_div(kTasksWanted / 2, chunks));
  const bool direct = chunks == 1 && pr.layout == Layout::kAlongX;
  const Workspace partials = workspace_of<T>(direct ? 0 : chunks * elements);
  T* partial = direct ? dw : partials.as<T>();
  accumulate(plan, chunks, splits, partial);
  if (!direct) reduce(pr, partial, chunks, dw);
}

template <class T>
void wgrad_dense(const T* dy, const T* x, T* dw, const Dense& d) {
  OuterSum<T>{dy, x, dw, d.K, d.M, d.C, 1, d.K}.run();
}

void wgrad(const Conv2dWgradArgs& a) {
  const Conv2dShape s = flatten_pointwise(a.shape);
  with_dtype(a.dtype, [&]<class T>(T) {
    const Index C = s.C / s.groups, K = s.K / s.groups, taps = s.window.kernel_h * s.window.kernel_w;
    const Wgrad chosen = choose_wgrad<T>(s);
    if (chosen != Wgrad::kNarrow && is_narrow<T>(s, C > K ? C : K)) return conv2d_wgrad.variant(Isa::kV3)(a);
    T* dw = static_cast<T*>(a.dw);
    if (s.N == 0) {
      std::memset(static_cast<void*>(dw), 0, static_cast<std::size_t>(s.K * taps * C) * sizeof(T));
      return;
    }
    const auto *dy = static_cast<const T*>(a.dy), *x = static_cast<const T*>(a.x);
    switch (chosen) {
      case Wgrad::kDense: return wgrad_dense(dy, x, dw, Dense(s));
      case Wgrad::kDepthwise: return Depthwise<T>(forward_grid(s)).wgrad(x, dy, dw);
      case Wgrad::kNarrow: return NarrowWgrad<T>(x, dy, s).run(dw);
      case Wgrad::kWinograd: return WinogradWgrad<T>(x, dy, s).run(dw);
      case Wgrad::kGathered: return GatheredWgrad<T>(x, s).run(dy, dw);
      case Wgrad::kTiles: break;
    }
    run_wgrad(Problem<T>{x, dy, s, forward_grid(s), C, K, taps, choose_layout<T>(s, C, K)}, dw);
  });
}

const Register kWgrad{conv2d_wgrad, kIsa, wgrad};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
