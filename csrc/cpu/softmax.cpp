// softmax over the last axis
//   fwd: y = exp(x - max(x)) / sum(exp(x - max(x)))
//   bwd: dx = y * (dy - sum(dy * y))
// C-contiguous rows; y may be x, and dx may be dy. Work: rows in parallel.
// Numerics: the maximum is taken off first, so nothing overflows; sums in the input's dtype, in vectors of
// partial sums. A row with NaN or +inf, or of -inf alone, becomes NaN. Both overwrite.
#include "core/dispatch.hpp"
#include "cpu/exp.hpp"
#include "cpu/windows.hpp"
#include "ops/kernels.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

template <class T>
T largest(const T* x, std::int64_t n) {
  T most = x[0];
  std::int64_t i = 0;
  if (n >= kLanes<T>) {
    Vec<T> mosts = load(x);
    for (i = kLanes<T>; i + kLanes<T> <= n; i += kLanes<T>) {
      const Vec<T> v = load(x + i);
      mosts = v > mosts ? v : mosts;
    }
    for (int k = 0; k < kLanes<T>; ++k) most = mosts[k] > most ? mosts[k] : most;
  }
  for (; i < n; ++i) most = x[i] > most ? x[i] : most;
  return most;
}

// The lanes that are elements, added in their order.
template <class T>
T sum_of(Vec<T> v, int lanes) {
  T sum{};
  for (int k = 0; k < lanes; ++k) sum += v[k];
  return sum;
}

template <class T>
void fwd_row(const T* x, T* y, std::int64_t n) {
  const T most = largest(x, n);
  Vec<T> sums{};
  std::int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) {
    const Vec<T> e = exp_of_negative<T>(load(x + i) - most);
    store(y + i, e);
    sums += e;
  }
  T sum = sum_of<T>(sums, kLanes<T>);
  if (const int rest = static_cast<int>(n - i); rest > 0) {
    const Vec<T> e = exp_of_negative<T>(load_part(x + i, rest) - most);
    store_part(y + i, e, rest);
    sum += sum_of<T>(e, rest);
  }
  for (i = 0; i < n; ++i) y[i] /= sum;
}

template <class T>
void bwd_row(const T* dy, const T* y, T* dx, std::int64_t n) {
  Vec<T> dots{};
  std::int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) dots += load(dy + i) * load(y + i);
  T dot = sum_of<T>(dots, kLanes<T>);
  for (; i < n; ++i) dot += dy[i] * y[i];
  for (i = 0; i < n; ++i) dx[i] = y[i] * (dy[i] - dot);
}

template <class F>
void for_rows(std::int64_t rows, std::int64_t columns, const F& f) {
  if (columns == 0) return;
  parallel_ranges(rows, rows_per_task(columns), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) f(i * columns);
  });
}

void fwd(const SoftmaxFwdArgs& a) {
  with_dtype(a.dtype, [&]<class T>(T) {
    const T* x = static_cast<const T*>(a.x);
    T* y = static_cast<T*>(a.y);
    for_rows(a.rows, a.columns, [=, &a](std::int64_t at) { fwd_row(x + at, y + at, a.columns); });
  });
}

void bwd(const SoftmaxBwdArgs& a) {
  with_dtype(a.dtype, [&]<class T>(T) {
    const T *dy = static_cast<const T*>(a.dy), *y = static_cast<const T*>(a.y);
    T* dx = static_cast<T*>(a.dx);
    for_rows(a.rows, a.columns, [=, &a](std::int64_t at) { bwd_row(dy + at, y + at, dx + at, a.columns); });
  });
}

const Register kFwd{softmax_fwd, kIsa, fwd};
const Register kBwd{softmax_bwd, kIsa, bwd};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
