// softmax over the last axis
//   fwd: y = exp(x - max(x)) / sum(exp(x - max(x)))
//   bwd: dx = y * (dy - sum(dy * y))
// C-contiguous rows; y may be x, and dx may be dy. Work: rows in parallel.
// Numerics: the maximum is taken off first, so nothing overflows; sums in the input's dtype, in vectors of
// partial sums. A row with NaN or +inf, or of -inf alone, becomes NaN. Both overwrite.
#include <cmath>

#include "core/dispatch.hpp"
#include "cpu/lanes.hpp"
#include "cpu/windows.hpp"
#include "ops/kernels.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

// f(i) for i in [0, n), summed in kLanes interleaved parts: what a vector would do, for any f.
template <class T, class F>
T sum_of(std::int64_t n, const F& f) {
  Vec<T> parts{};
  std::int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) {
    Vec<T> v{};
    for (int j = 0; j < kLanes<T>; ++j) v[j] = f(i + j);
    parts += v;
  }
  T sum{};
  for (int j = 0; j < kLanes<T>; ++j) sum += parts[j];
  for (; i < n; ++i) sum += f(i);
  return sum;
}

template <class T>
void fwd_row(const T* x, T* y, std::int64_t n) {
  T most = x[0];
  for (std::int64_t i = 1; i < n; ++i) most = x[i] > most ? x[i] : most;
  for (std::int64_t i = 0; i < n; ++i) y[i] = std::exp(x[i] - most);
  const T sum = sum_of<T>(n, [=](std::int64_t i) { return y[i]; });
  for (std::int64_t i = 0; i < n; ++i) y[i] /= sum;
}

template <class T>
void bwd_row(const T* dy, const T* y, T* dx, std::int64_t n) {
  const T dot = sum_of<T>(n, [=](std::int64_t i) { return dy[i] * y[i]; });
  for (std::int64_t i = 0; i < n; ++i) dx[i] = y[i] * (dy[i] - dot);
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
