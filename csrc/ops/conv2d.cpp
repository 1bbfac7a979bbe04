#include "core/check.hpp"
#include "core/dispatch.hpp"
#include "ops/conv2d_shape.hpp"

namespace stapes::ops {

Shape conv2d_fwd_shape(const char* op, const Shape& x, const Shape& w, Pair stride, const Padding& padding,
                       Pair dilation, std::int64_t groups) {
  const Conv2dShape s = conv2d_shape(op, x, w, stride, padding, dilation, groups);
  return {s.N, s.window.P, s.window.Q, s.K};
}

void conv2d_fwd(const Tensor& x, const Tensor& w, const OptionalTensor& b, const Tensor& y, Pair stride,
                const Padding& padding, Pair dilation, std::int64_t groups, bool relu, Precision precision) {
  const Check check("conv2d_fwd", {in("x", x), in("w", w), in("b", b), out("y", y)});
  check.computes("x", x);
  check.dtype("w", w, x.dtype);
  check.precision(x, precision);
  const Conv2dShape s = conv2d_shape("conv2d_fwd", x.shape, w.shape, stride, padding, dilation, groups);
  if (b) check.wide("b", *b, x, {s.K});
  check.matches("y", y, x, {s.N, s.window.P, s.window.Q, s.K});
  run<cpu::conv2d_fwd, cuda::conv2d_fwd>(
      "conv2d_fwd", x, Conv2dFwdArgs{x.data, w.data, b ? b->data : nullptr, y.data, s, relu, x.dtype, precision});
}

void conv2d_dgrad(const Tensor& dy, const Tensor& w, const Tensor& dx, Pair stride, const Padding& padding,
                  Pair dilation, std::int64_t groups, Precision precision) {
  const Check check("conv2d_dgrad", {in("dy", dy), in("w", w), out("dx", dx)});
  check.computes("dy", dy);
  check.dtype("w", w, dy.dtype);
  check.dtype("dx", dx, dy.dtype);
  check.precision(dy, precision);
  const Conv2dShape s = conv2d_shape("conv2d_dgrad", dx.shape, w.shape, stride, padding, dilation, groups);
  check.shape("dy", dy, {s.N, s.window.P, s.window.Q, s.K});
  run<cpu::conv2d_dgrad, cuda::conv2d_dgrad>(
      "conv2d_dgrad", dy, Conv2dDgradArgs{dy.data, w.data, nullptr, dx.data, s, dy.dtype, precision});
}

void conv2d_wgrad(const Tensor& dy, const Tensor& x, const Tensor& dw, Pair stride, const Padding& padding,
                  Pair dilation, std::int64_t groups, Precision precision) {
  const Check check("conv2d_wgrad", {in("dy", dy), in("x", x), out("dw", dw)});
  check.computes("dy", dy);
  check.dtype("x", x, dy.dtype);
  check.dtype("dw", dw, wide_of(dy.dtype));
  check.precision(x, precision);
  const Conv2dShape s = conv2d_shape("conv2d_wgrad", x.shape, dw.shape, stride, padding, dilation, groups);
  check.shape("dy", dy, {s.N, s.window.P, s.window.Q, s.K});
  run<cpu::conv2d_wgrad, cuda::conv2d_wgrad>("conv2d_wgrad", dy,
                                             Conv2dWgradArgs{dy.data, x.data, dw.data, s, dy.dtype, precision});
}

void conv2d_bgrad(const Tensor& dy, const Tensor& db) {
  const Check check("conv2d_bgrad", {in("dy", dy), out("db", db)});
  check.computes("dy", dy);
  check.ndim("dy", dy, 4, "(N,P,Q,K)");
  check.wide("db", db, dy, {dy.shape.last()});
  const std::int64_t K = dy.shape.last();
  run<cpu::conv2d_bgrad, cuda::conv2d_bgrad>(
      "conv2d_bgrad", dy, Conv2dBgradArgs{dy.data, db.data, dy.shape[0] * dy.shape[1] * dy.shape[2], K, dy.dtype});
}

}  // namespace stapes::ops
