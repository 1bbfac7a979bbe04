// db[k] = sum over rows of dy (rows, K), a row being a pixel (or a sample: linear)
// Work: chunks of a fixed number of rows in parallel. Numerics: each chunk is summed in T, the chunks in double, in
// their order. Overwrites.
#include <type_traits>

#include "core/dispatch.hpp"
#include "cpu/lanes.hpp"
#include "cpu/parallel.hpp"
#include "cpu/workspace.hpp"
#include "ops/kernels.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

inline constexpr std::int64_t kRows = 256;

// V, `kCount` of them side by side: as many sums in registers.
template <class V, int kCount, class T>
void add_columns(const T* dy, std::int64_t rows, std::int64_t K, T* sums) {
  constexpr std::int64_t kStep = std::is_same_v<V, T> ? 1 : kLanes<T>;
  V sum[kCount]{};
  for (std::int64_t row = 0; row < rows; ++row, dy += K) {
#pragma GCC unroll 4
    for (int v = 0; v < kCount; ++v) sum[v] += load_as<V>(dy + v * kStep);
  }
#pragma GCC unroll 4
  for (int v = 0; v < kCount; ++v) store_as(sums + v * kStep, sum[v]);
}

template <class T>
void add_rows(const T* dy, std::int64_t rows, std::int64_t K, T* sums) {
  std::int64_t k = 0;
  for (; k + 4 * kLanes<T> <= K; k += 4 * kLanes<T>) add_columns<Vec<T>, 4>(dy + k, rows, K, sums + k);
  for (; k + kLanes<T> <= K; k += kLanes<T>) add_columns<Vec<T>, 1>(dy + k, rows, K, sums + k);
  for (; k < K; ++k) add_columns<T, 1>(dy + k, rows, K, sums + k);
}

void bgrad(const Conv2dBgradArgs& a) {
  with_dtype(a.dtype, [&]<class T>(T) {
    const T* dy = static_cast<const T*>(a.dy);
    T* db = static_cast<T*>(a.db);
    const std::int64_t K = a.K, chunks = ceil_div(a.rows, kRows);
    const Workspace partial = workspace_of<T>(chunks * K);
    parallel_for(chunks, [&](std::int64_t i) {
      add_rows(dy + i * kRows * K, least(kRows, a.rows - i * kRows), K, partial.as<T>() + i * K);
    });
    for (std::int64_t k = 0; k < K; ++k) {
      double sum = 0;
      for (std::int64_t i = 0; i < chunks; ++i) sum += static_cast<double>(partial.as<T>()[i * K + k]);
      db[k] = static_cast<T>(sum);
    }
  });
}

const Register kBgrad{conv2d_bgrad, kIsa, bgrad};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
