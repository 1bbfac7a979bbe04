// relu
//   fwd: y = max(x, 0)
//   bwd: dx = dy where y > 0, else 0
// Any shape; y may be x, and dx may be dy. Work: fixed pieces of the array in parallel, in the compiler's vectors.
// Numerics: exact. NaN passes: y is NaN where x is, and gradients pass where y is NaN. Both overwrite.
#include "core/dispatch.hpp"
#include "cpu/parallel.hpp"
#include "ops/kernels.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

void fwd(const ReluFwdArgs& a) {
  with_dtype(a.dtype, [&]<class T>(T) {
    const T* x = static_cast<const T*>(a.x);
    T* y = static_cast<T*>(a.y);
    parallel_ranges(a.size, kGrain, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) y[i] = x[i] < T(0) ? T(0) : x[i];
    });
  });
}

void bwd(const ReluBwdArgs& a) {
  with_dtype(a.dtype, [&]<class T>(T) {
    const T *dy = static_cast<const T*>(a.dy), *y = static_cast<const T*>(a.y);
    T* dx = static_cast<T*>(a.dx);
    parallel_ranges(a.size, kGrain, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const T g = dy[i];  // read always, so that the choice is a mask and not a branch
        dx[i] = y[i] <= T(0) ? T(0) : g;
      }
    });
  });
}

const Register kFwd{relu_fwd, kIsa, fwd};
const Register kBwd{relu_bwd, kIsa, bwd};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
