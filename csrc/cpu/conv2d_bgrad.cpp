// db[k] = sum over rows of dy (rows, K), a row being a pixel (or a sample: linear)
// Work: chunks of a fixed number of rows in parallel. Numerics: each chunk is summed in T, the chunks in double, in
// their order. Overwrites.
#include "core/dispatch.hpp"
#include "cpu/parallel.hpp"
#include "cpu/workspace.hpp"
#include "ops/kernels.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

inline constexpr std::int64_t kRows = 256;

void bgrad(const Conv2dBgradArgs& a) {
  with_dtype(a.dtype, [&]<class T>(T) {
    const T* dy = static_cast<const T*>(a.dy);
    T* db = static_cast<T*>(a.db);
    const std::int64_t K = a.K, chunks = ceil_div(a.rows, kRows);
    const Workspace partial = workspace_of<T>(chunks * K);
    parallel_for(chunks, [&](std::int64_t i) {
      T* sum = partial.as<T>() + i * K;
      for (std::int64_t k = 0; k < K; ++k) sum[k] = T(0);
      const std::int64_t end = least((i + 1) * kRows, a.rows);
      for (std::int64_t row = i * kRows; row < end; ++row)
        for (std::int64_t k = 0; k < K; ++k) sum[k] += dy[row * K + k];
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
