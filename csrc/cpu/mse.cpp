// mse
//   fwd: loss = mean of (y - target)^2, 0 without elements
//   bwd: dy = 2 scale (y - target) / size
// Any shape. Work: chunks of kGrain elements in parallel, their sums added in order.
// Numerics: the loss's differences and sums in double, dy in the input's dtype. Both overwrite.
#include "core/dispatch.hpp"
#include "cpu/columns.hpp"
#include "cpu/workspace.hpp"
#include "ops/kernels.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

using std::int64_t;

template <class T>
double squared_distance(const T* y, const T* target, int64_t n) {
  constexpr int V = 4;
  Vec<double> sums[V] = {};
  int64_t i = 0;
  for (; i + V * kDoubles <= n; i += V * kDoubles) {
    for (int v = 0; v < V; ++v) {
      const Vec<double> d = load_double(y + i + v * kDoubles) - load_double(target + i + v * kDoubles);
      sums[v] += d * d;
    }
  }
  const Vec<double> lanes = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  double sum = 0;
  for (int l = 0; l < kDoubles; ++l) sum += lanes[l];
  for (; i < n; ++i) {
    const double d = static_cast<double>(y[i]) - static_cast<double>(target[i]);
    sum += d * d;
  }
  return sum;
}

void fwd(const MseFwdArgs& a) {
  with_dtype(a.dtype, [&]<class T>(T) {
    const T *y = static_cast<const T*>(a.y), *target = static_cast<const T*>(a.target);
    const int64_t chunks = ceil_div(a.size, kGrain);
    const Workspace scratch = workspace_of<double>(chunks);
    double* sums = scratch.as<double>();
    parallel_for(chunks, [=](int64_t i) {
      const Range r = part(a.size, chunks, i);
      sums[i] = squared_distance(y + r.begin, target + r.begin, r.end - r.begin);
    });
    double sum = 0;
    for (int64_t i = 0; i < chunks; ++i) sum += sums[i];
    *static_cast<T*>(a.loss) = a.size > 0 ? static_cast<T>(sum / static_cast<double>(a.size)) : T(0);
  });
}

void bwd(const MseBwdArgs& a) {
  with_dtype(a.dtype, [&]<class T>(T) {
    const T *y = static_cast<const T*>(a.y), *target = static_cast<const T*>(a.target);
    T* dy = static_cast<T*>(a.dy);
    const T scale = static_cast<T>(2.0 * a.scale.value / static_cast<double>(a.size));
    parallel_ranges(a.size, kGrain, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) dy[i] = (y[i] - target[i]) * scale;
    });
  });
}

const Register kFwd{mse_fwd, kIsa, fwd};
const Register kBwd{mse_bwd, kIsa, bwd};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
