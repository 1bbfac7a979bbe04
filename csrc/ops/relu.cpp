#include "core/check.hpp"
#include "core/dispatch.hpp"
#include "ops/ops.hpp"

namespace stapes::ops {

void relu_fwd(const Tensor& x, const Tensor& y) {
  const Check check("relu_fwd", {in("x", x), in_place_out("y", y)});
  check.computes("x", x);
  check.matches("y", y, x, x.shape);
  run<cpu::relu_fwd, cuda::relu_fwd>("relu_fwd", x, ReluFwdArgs{x.data, y.data, x.numel(), x.dtype});
}

void relu_bwd(const Tensor& dy, const Tensor& y, const Tensor& dx) {
  const Check check("relu_bwd", {in("dy", dy), in("y", y), in_place_out("dx", dx)});
  check.computes("dy", dy);
  check.matches("y", y, dy, dy.shape);
  check.matches("dx", dx, dy, dy.shape);
  run<cpu::relu_bwd, cuda::relu_bwd>("relu_bwd", dy, ReluBwdArgs{dy.data, y.data, dx.data, dy.numel(), dy.dtype});
}

}  // namespace stapes::ops
