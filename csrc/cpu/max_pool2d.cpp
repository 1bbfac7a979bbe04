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
#include "cpu/lanes.hpp"
#include "cpu/windows.hpp"
#include "cpu/workspace.hpp"
#include "ops/kernels.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

constexpr std::int64_t kDead = 255;

// argmax is stored narrower (or, for float64, no wider) than the index vectors that come out of comparisons.
template <class V, class A>
struct NarrowOf {
  typedef A type __attribute__((vector_size(sizeof(V) / sizeof(V{}[0] + 0) * sizeof(A))));
};
template <class A>
struct NarrowOf<std::int32_t, A> {
  using type = A;
};
template <class A>
struct NarrowOf<std::int64_t, A> {
  using type = A;
};

template <class V, class A>
[[gnu::always_inline]] inline void store_index(A* p, V at) {
  using Narrow = typename NarrowOf<V, A>::type;
  if constexpr (sizeof(Narrow) == sizeof(A)) {
    *p = static_cast<A>(at);
  } else {
    const Narrow narrow = __builtin_convertvector(at, Narrow);
    __builtin_memcpy(p, &narrow, sizeof(narrow));
  }
}

template <class V, class A>
[[gnu::always_inline]] inline V load_index(const A* p) {
  using Narrow = typename NarrowOf<V, A>::type;
  if constexpr (sizeof(Narrow) == sizeof(A)) {
    return static_cast<V>(*p);
  } else {
    Narrow narrow;
    __builtin_memcpy(&narrow, p, sizeof(narrow));
    return __builtin_convertvector(narrow, V);
  }
}

template <class V>
[[gnu::always_inline]] inline V index_splat(std::int64_t value) {
  if constexpr (std::is_integral_v<V>) {
    return static_cast<V>(value);
  } else {
    return V{} + static_cast<std::remove_cvref_t<decltype(V{}[0])>>(value);
  }
}

// One window over all channels. x is the image; corner is the window's place 0 in it (in elements,
// negative in padding); places r, s are those that lie in the image.
template <class T, class A>
[[gnu::always_inline]] inline void pool_window(const T* x, std::int64_t corner, std::int64_t row, std::int64_t C,
                                               Range r, Range s, std::int64_t kernel_w, T* y, A* argmax) {
  for_channels<T>(C, [&]<class V>(V, std::int64_t c) {
    using I = Index<V>;
    V best = load_as<V>(x + corner + r.begin * row + s.begin * C + c);
    I at = index_splat<I>(r.begin * kernel_w + s.begin);
    for (std::int64_t i = r.begin; i < r.end; ++i) {
      for (std::int64_t j = s.begin; j < s.end; ++j) {
        const V v = load_as<V>(x + corner + i * row + j * C + c);
        const auto stays = v <= best;
        const auto take = (stays == 0) & (best == best);  // larger, or the first NaN
        best = take ? v : best;
        at = take ? index_splat<I>(i * kernel_w + j) : at;
      }
    }
    store_as(y + c, best);
    store_index(argmax + c, at);
  });
}

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
      pool_window(x, corner, row, a.C, {0, 2}, {0, 2}, 2, y, argmax);  // constants, so that it is unrolled
    } else {
      pool_window(x, corner, row, a.C, r, s, w.kernel_w, y, argmax);
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
  for (std::int64_t i = 0; i < a.W; ++i, dx += C) {
    const Range qs = columns[i];
    for_channels<T>(C, [&]<class V>(V, std::int64_t c) {
      using I = Index<V>;
      V sum{};
      for (std::int64_t p = ps.begin; p < ps.end; ++p) {
        for (std::int64_t q = qs.begin; q < qs.end; ++q) {
          const std::int64_t place = (h + w.pad_top - p * w.stride_h) * w.kernel_w + i + w.pad_left - q * w.stride_w;
          const V g = load_as<V>(dy + p * row + q * C + c);
          sum += load_index<I>(argmax + p * row + q * C + c) == index_splat<I>(place) ? g : V{};
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
