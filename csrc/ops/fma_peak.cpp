#include <atomic>
#include <stdexcept>

#include "ops/ops.hpp"

namespace stapes::ops {

std::int64_t fma_peak(std::int64_t steps, bool float64) {
  if (steps < 1) throw std::invalid_argument("fma_peak: steps must be at least 1");
  double checksum = 0;
  std::int64_t flops = 0;
  cpu::fma_peak({steps, float64 ? DType::kFloat64 : DType::kFloat32, &checksum, &flops});
  static std::atomic<double> sink;
  sink = checksum;
  return flops;
}

}  // namespace stapes::ops
