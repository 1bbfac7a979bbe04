// fma_peak: the machine's limit that the benchmarks compare with
// Work: one thread; independent chains of multiply-adds in registers, two vector units' worth of them (12), or all that
// fit with AVX-512 (24).
#include "cpu/simd.hpp"
#include "ops/kernels.hpp"

// The assembler constraint of a vector register.
#if defined(__x86_64__)
#define STAPES_VECTOR_REGISTER "+v"
#elif defined(__aarch64__)
#define STAPES_VECTOR_REGISTER "+w"
#else
#define STAPES_VECTOR_REGISTER "+m"
#endif

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

constexpr int kChains = STAPES_VECTOR_BYTES == 64 ? 24 : 12;

template <class T>
double run_chains(std::int64_t steps) {
  // Every loop over the chains is unrolled: one index known only at run time would put them all in memory.
  Vec<T> acc[kChains];
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) acc[i] = splat(T(1) + T(i) / T(16));
  const Vec<T> a = splat(T(0.9999999)), b = splat(T(1e-7));
  for (std::int64_t s = 0; s < steps; ++s) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) {
      acc[i] = acc[i] * a + b;
      asm volatile("" : STAPES_VECTOR_REGISTER(acc[i]));  // keeps every chain in a register of its own
    }
  }
  double sum = 0;
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) sum += static_cast<double>(acc[i][0]);
  return sum;
}

void peak(const FmaPeakArgs& a) {
  const bool wide = a.dtype == DType::kFloat64;
  *a.checksum = wide ? run_chains<double>(a.steps) : run_chains<float>(a.steps);
  *a.flops = 2 * a.steps * kChains * (wide ? kLanes<double> : kLanes<float>);
}

const Register kPeak{fma_peak, kIsa, peak};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
