#include "core/check.hpp"
#include "core/dispatch.hpp"
#include "ops/ops.hpp"

namespace stapes::ops {

void avg_pool2d_fwd(const Tensor& x, const Tensor& y, Pair kernel, Pair stride, const Padding& padding,
                    bool count_include_pad) {
  const Check check("avg_pool2d_fwd", {in("x", x), out("y", y)});
  check.computes("x", x);
  check.ndim("x", x, 4, "(N,H,W,C)");
  const Window2d w = window2d("avg_pool2d_fwd", x.shape[1], x.shape[2], kernel, stride, padding);
  check.matches("y", y, x, {x.shape[0], w.P, w.Q, x.shape[3]});
  run<cpu::avg_pool2d_fwd, cuda::avg_pool2d_fwd>(
      "avg_pool2d_fwd", x,
      AvgPool2dArgs{x.data, y.data, x.shape[0], x.shape[1], x.shape[2], x.shape[3], w, count_include_pad, x.dtype});
}

void avg_pool2d_bwd(const Tensor& dy, const Tensor& dx, const Shape& x_shape, Pair kernel, Pair stride,
                    const Padding& padding, bool count_include_pad) {
  const Check check("avg_pool2d_bwd", {in("dy", dy), out("dx", dx)});
  check.computes("dy", dy);
  check.require(x_shape.ndim() == 4, "x_shape must be (N,H,W,C), got ", to_string(x_shape));
  const Window2d w = window2d("avg_pool2d_bwd", x_shape[1], x_shape[2], kernel, stride, padding);
  check.shape("dy", dy, {x_shape[0], w.P, w.Q, x_shape[3]});
  check.matches("dx", dx, dy, x_shape);
  run<cpu::avg_pool2d_bwd, cuda::avg_pool2d_bwd>(
      "avg_pool2d_bwd", dy,
      AvgPool2dArgs{dy.data, dx.data, x_shape[0], x_shape[1], x_shape[2], x_shape[3], w, count_include_pad, dy.dtype});
}

}  // namespace stapes::ops
