#include "core/check.hpp"
#include "core/dispatch.hpp"
#include "ops/ops.hpp"

namespace stapes::ops {

void global_avg_pool2d_fwd(const Tensor& x, const Tensor& y) {
  const Check check("global_avg_pool2d_fwd", {in("x", x), out("y", y)});
  check.computes("x", x);
  check.matches("y", y, x, global_pool2d_shape("global_avg_pool2d_fwd", x.shape));
  const std::int64_t pixels = x.shape[1] * x.shape[2];
  run<cpu::global_avg_pool2d_fwd, cuda::global_avg_pool2d_fwd>(
      "global_avg_pool2d_fwd", x, GlobalAvgPool2dArgs{x.data, y.data, x.shape[0], pixels, x.shape[3], x.dtype});
}

void global_avg_pool2d_bwd(const Tensor& dy, const Tensor& dx, const Shape& x_shape) {
  const Check check("global_avg_pool2d_bwd", {in("dy", dy), out("dx", dx)});
  check.computes("dy", dy);
  check.shape("dy", dy, global_pool2d_shape("global_avg_pool2d_bwd", x_shape));
  check.matches("dx", dx, dy, x_shape);
  const std::int64_t pixels = x_shape[1] * x_shape[2];
  run<cpu::global_avg_pool2d_bwd, cuda::global_avg_pool2d_bwd>(
      "global_avg_pool2d_bwd", dy, GlobalAvgPool2dArgs{dy.data, dx.data, x_shape[0], pixels, x_shape[3], dy.dtype});
}

}  // namespace stapes::ops
