// Every operator: what the bindings call (ops::), the arguments that a kernel gets, and the CPU kernel (cpu::).
// Layout NHWC, weights KRSC, C-contiguous. Formulas and layouts are told at the kernels and in python/stapes/ops.
#pragma once

#include <cstdint>

#include "core/tensor.hpp"
#include "cpu/isa.hpp"

namespace stapes {

// relu
struct ReluFwdArgs {
  const void* x;
  void* y;
  std::int64_t size;
  DType dtype;
};
struct ReluBwdArgs {
  const void *dy, *y;
  void* dx;
  std::int64_t size;
  DType dtype;
};

namespace cpu {
inline constinit Kernel<ReluFwdArgs> relu_fwd;
inline constinit Kernel<ReluBwdArgs> relu_bwd;
}  // namespace cpu

namespace ops {
void relu_fwd(const Tensor& x, const Tensor& y);
void relu_bwd(const Tensor& dy, const Tensor& y, const Tensor& dx);
}  // namespace ops

}  // namespace stapes
