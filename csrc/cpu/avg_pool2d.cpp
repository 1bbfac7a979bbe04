// avg_pool2d
//   fwd: y[n,p,q,c] = sum over the window of x / count
//   bwd: dx[n,h,w,c] = sum of dy / count over the windows covering (h, w)
// count is kernel_h * kernel_w, or with count_include_pad false the places in the image; a window of padding
// alone (possible then) gives 0 and passes no gradient.
// Layout NHWC. Work: rows of the result in parallel; vectors along the channels.
// Numerics: sums in the input's dtype, a window's rows first, in scan order. Both overwrite.
#include "core/dispatch.hpp"
#include "cpu/lanes.hpp"
#include "cpu/windows.hpp"
#include "cpu/workspace.hpp"
#include "ops/kernels.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

std::int64_t length(Range r) { return r.end - r.begin; }

template <class T>
[[gnu::always_inline]] inline void mean_of_window(const T* x, std::int64_t corner, std::int64_t row, std::int64_t C,
                                                  Range r, Range s, T count, T* y) {
  for_channels<T>(C, [&]<class V>(V, std::int64_t c) {
    V sum{};
    for (std::int64_t i = r.begin; i < r.end; ++i) {
      V line{};
      for (std::int64_t j = s.begin; j < s.end; ++j) line += load_as<V>(x + corner + i * row + j * C + c);
      sum += line;
    }
    store_as(y + c, sum / count);
  });
}

template <class T>
void fwd_row(const AvgPool2dArgs& a, std::int64_t n, std::int64_t p) {
  const Window2d& w = a.window;
  const std::int64_t row = a.W * a.C;
  const T* x = static_cast<const T*>(a.in) + n * a.H * row;
  T* y = static_cast<T*>(a.out) + (n * w.P + p) * w.Q * a.C;
  const Range r = places_of(rows_of(w, a.H), p);
  for (std::int64_t q = 0; q < w.Q; ++q, y += a.C) {
    const std::int64_t corner = (p * w.stride_h - w.pad_top) * row + (q * w.stride_w - w.pad_left) * a.C;
    const Range s = places_of(columns_of(w, a.W), q);
    const std::int64_t inside = length(r) * length(s);
    const std::int64_t count = a.count_include_pad || inside == 0 ? w.kernel_h * w.kernel_w : inside;
    if (w.kernel_h == 2 && w.kernel_w == 2 && inside == 4) {
      mean_of_window(x, corner, row, a.C, {0, 2}, {0, 2}, T(4), y);  // constants, so that it is unrolled
    } else {
      mean_of_window(x, corner, row, a.C, r, s, static_cast<T>(count), y);
    }
  }
}

// What covers a column of dx. For windows with a count of their own: their lengths along the row.
struct Columns {
  const Range* covering;
  const std::int64_t* lengths;
};

template <class T>
void bwd_row(const AvgPool2dArgs& a, const Columns& columns, std::int64_t n, std::int64_t h) {
  const Window2d& w = a.window;
  const std::int64_t C = a.C, row = w.Q * C;
  const PoolAxis rows = rows_of(w, a.H);
  const T* dy = static_cast<const T*>(a.in) + n * w.P * row;
  T* dx = static_cast<T*>(a.out) + (n * a.H + h) * a.W * C;
  const T area = static_cast<T>(w.kernel_h * w.kernel_w);
  const Range ps = covering(rows, h);
  for (std::int64_t i = 0; i < a.W; ++i, dx += C) {
    const Range qs = columns.covering[i];
    for_channels<T>(C, [&]<class V>(V, std::int64_t c) {
      V sum{};
      for (std::int64_t p = ps.begin; p < ps.end; ++p) {
        const std::int64_t height = a.count_include_pad ? 0 : length(places_of(rows, p));
        for (std::int64_t q = qs.begin; q < qs.end; ++q) {
          const V g = load_as<V>(dy + p * row + q * C + c);
          sum += a.count_include_pad ? g : g / static_cast<T>(height * columns.lengths[q]);
        }
      }
      store_as(dx + c, a.count_include_pad ? sum / area : sum);
    });
  }
}

void fwd(const AvgPool2dArgs& a) {
  with_dtype(a.dtype, [&]<class T>(T) {
    const std::int64_t P = a.window.P;
    parallel_ranges(a.N * P, rows_per_task(a.window.Q * a.C), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) fwd_row<T>(a, i / P, i % P);
    });
  });
}

void bwd(const AvgPool2dArgs& a) {
  if (a.N == 0) return;
  const PoolAxis axis = columns_of(a.window, a.W);
  const Workspace covering_scratch = workspace_of<Range>(a.W), lengths_scratch = workspace_of<std::int64_t>(axis.count);
  Range* covers = covering_scratch.as<Range>();
  std::int64_t* lengths = lengths_scratch.as<std::int64_t>();
  for (std::int64_t i = 0; i < a.W; ++i) covers[i] = covering(axis, i);
  for (std::int64_t q = 0; q < axis.count; ++q) lengths[q] = length(places_of(axis, q));

  with_dtype(a.dtype, [&]<class T>(T) {
    parallel_ranges(a.N * a.H, rows_per_task(a.W * a.C), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) bwd_row<T>(a, {covers, lengths}, i / a.H, i % a.H);
    });
  });
}

const Register kFwd{avg_pool2d_fwd, kIsa, fwd};
const Register kBwd{avg_pool2d_bwd, kIsa, bwd};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
