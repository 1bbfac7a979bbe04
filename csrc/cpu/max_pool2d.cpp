// max_pool2d
//   fwd: y[n,p,q,c] = max over the window of x, argmax = r * kernel_w + s of the first maximum in scan
//        order; the first NaN wins; padding is never chosen.
//   bwd: dx[n,h,w,c] = sum of dy over the windows covering (h, w) whose argmax is that place.
// Layout NHWC; argmax uint8 (255: dead, no gradient) or int32, dy and argmax in the layout of y.
// Work: rows of y (fwd) and of dx (bwd) in parallel; vectors along the channels. The backward gathers, so
// that overlapping windows need neither atomics nor an order of writing: the sum runs in scan order.
// Numerics: fwd is exact; bwd adds in the input's dtype. Both overwrite.
#include <type_traits>

#include "core/dispatch.hpp"
#include "cpu/argmax.hpp"
#include "cpu/lanes.hpp"
#include "cpu/pool_window.hpp"
#include "cpu/windows.hpp"
#include "cpu/workspace.hpp"
#include "ops/kernels.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

template <class T, class A>
void fwd_row(const MaxPool2dFwdArgs& a, std::int64_t n, std::int64_t p) {
  const Window2d& w = a.window;
  const std::int64_t row = a.W * a.C;
  const T* x = static_cast<const T*>(a.x) + n * a.H * row;
  T* y = static_cast<T*>(a.y) + (n * w.P + p) * w.Q * a.C;
  A* argmax = static_cast<A*>(a.argmax) + (n * w.P + p) * w.Q * a.C;
  const Range r = places_of(rows_of(w, a.H), p);
  for (std::int64_t q = 0; q < w.Q; ++q, y += a.C, argmax += a.C) {
    const std::int64_t corner = (p * w.stride_h - w.pad_top) * row + (q * w.stride_w - w.pad_left) * a.C;
    const Range s = places_of(columns_of(w, a.W), q);
    if (w.kernel_h == 2 && w.kernel_w == 2 && r.end - r.begin == 2 && s.end - s.begin == 2) {
      pool_window<false>(x, corner, row, a.C, {0, 2}, {0, 2}, 2, y, argmax);  // constants, so that it is unrolled
    } else {
      pool_window<false>(x, corner, row, a.C, r, s, w.kernel_w, y, argmax);
    }
  }
}

template <class T, class A>
void bwd_row(const MaxPool2dBwdArgs& a, const Range* columns, std::int64_t n, std::int64_t h) {
  const Window2d& w = a.window;
  const std::int64_t C = a.C, row = w.Q * C;
  const T* dy = static_cast<const T*>(a.dy) + n * w.P * row;
  const A* argmax = static_cast<const A*>(a.argmax) + n * w.P * row;
  T* dx = static_cast<T*>(a.dx) + (n * a.H + h) * a.W * C;
  const Range ps = covering(rows_of(w, a.H), h);
  const std::int64_t step = w.stride_h * w.kernel_w;  // between a place's numbers in a window and the one below
  for (std::int64_t i = 0; i < a.W; ++i, dx += C) {
    const Range qs = columns[i];
    const std::int64_t at = ps.begin * row + qs.begin * C;
    const std::int64_t place =
        (h + w.pad_top - ps.begin * w.stride_h) * w.kernel_w + i + w.pad_left - qs.begin * w.stride_w;
    if (ps.end - ps.begin == 1 && qs.end - qs.begin == 1) {  // always so where windows do not overlap
      for_channels<T>(C, [&]<class V>(V, std::int64_t c) {
        const V g = load_as<V>(dy + at + c);
        store_as(dx + c, is_place<V>(argmax + at + c, place, dy) ? g : V{});
      });
      continue;
    }
    for_channels<T>(C, [&]<class V>(V, std::int64_t c) {
      V sum{};
      for (std::int64_t p = 0; p < ps.end - ps.begin; ++p) {
        for (std::int64_t q = 0; q < qs.end - qs.begin; ++q) {
          const std::int64_t from = at + p * row + q * C + c;
          const V g = load_as<V>(dy + from);
          sum += is_place<V>(argmax + from, place - p * step - q * w.stride_w, dy) ? g : V{};
        }
      }
      store_as(dx + c, sum);
    });
  }
}

template <class A>
bool is_valid(std::int64_t place, const Window2d& w, Range r, Range s) {
  if (sizeof(A) == 1 && place == kDead) return true;
  const std::int64_t i = place / w.kernel_w, j = place % w.kernel_w;
  return place >= 0 && i >= r.begin && i < r.end && j >= s.begin && j < s.end;
}

// Does a row of argmax hold nothing but places of its windows inside of the image?
template <class A>
bool valid_row(const MaxPool2dBwdArgs& a, std::int64_t n, std::int64_t p) {
  const Window2d& w = a.window;
  const A* argmax = static_cast<const A*>(a.argmax) + (n * w.P + p) * w.Q * a.C;
  const Range r = places_of(rows_of(w, a.H), p);
  const std::int64_t area = w.kernel_h * w.kernel_w;
  for (std::int64_t q = 0; q < w.Q; ++q, argmax += a.C) {
    const Range s = places_of(columns_of(w, a.W), q);
    int wrong = 0;
    if ((r.end - r.begin) * (s.end - s.begin) == area) {
      const A most = static_cast<A>(area - 1), dead = sizeof(A) == 1 ? static_cast<A>(kDead) : most;
      for (std::int64_t c = 0; c < a.C; ++c) {
        wrong |= static_cast<int>(argmax[c] > most && argmax[c] != dead) | static_cast<int>(argmax[c] < A{});
      }
    } else {
      for (std::int64_t c = 0; c < a.C; ++c) wrong |= static_cast<int>(!is_valid<A>(argmax[c], w, r, s));
    }
    if (wrong != 0) return false;
  }
  return true;
}

template <class F>
void with_types(DType dtype, DType argmax_dtype, F&& f) {
  with_dtype(dtype, [&]<class T>(T) {
    if (argmax_dtype == DType::kUInt8) {
      f(T{}, std::uint8_t{});
    } else {
      f(T{}, std::int32_t{});
    }
  });
}

void fwd(const MaxPool2dFwdArgs& a) {
  with_types(a.dtype, a.argmax_dtype, [&]<class T, class A>(T, A) {
    const std::int64_t P = a.window.P;
    parallel_ranges(a.N * P, rows_per_task(a.window.Q * a.C), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) fwd_row<T, A>(a, i / P, i % P);
    });
  });
}

void bwd(const MaxPool2dBwdArgs& a) {
  if (a.N == 0) return;
  const Workspace scratch = workspace_of<Range>(a.W);
  Range* columns = scratch.as<Range>();
  for (std::int64_t i = 0; i < a.W; ++i) columns[i] = covering(columns_of(a.window, a.W), i);

  with_types(a.dtype, a.argmax_dtype, [&]<class T, class A>(T, A) {
    const std::int64_t P = a.window.P;
    bool valid = true;
    parallel_ranges(a.N * P, rows_per_task(a.window.Q * a.C), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        if (!valid_row<A>(a, i / P, i % P)) __atomic_store_n(&valid, false, __ATOMIC_RELAXED);
      }
    });
    *a.argmax_valid = valid;
    if (!valid) return;
    parallel_ranges(a.N * a.H, rows_per_task(a.W * a.C), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) bwd_row<T, A>(a, columns, i / a.H, i % a.H);
    });
  });
}

const Register kFwd{max_pool2d_fwd, kIsa, fwd};
const Register kBwd{max_pool2d_bwd, kIsa, bwd};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
