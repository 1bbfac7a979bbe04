// cast: y = x in another floating dtype
// Any shape. Work: fixed pieces of the array in parallel, in the compiler's vectors.
// Numerics: rounds to nearest, ties to even. Overwrites.
#include "core/dispatch.hpp"
#include "cpu/parallel.hpp"
#include "ops/kernels.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

void run_cast(const CastArgs& a) {
  with_dtype(a.from, [&]<class From>(From) {
    with_dtype(a.to, [&]<class To>(To) {
      const From* x = static_cast<const From*>(a.x);
      To* y = static_cast<To*>(a.y);
      parallel_ranges(a.size, kGrain, [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) y[i] = static_cast<To>(x[i]);
      });
    });
  });
}

const Register kCast{cast, kIsa, run_cast};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
