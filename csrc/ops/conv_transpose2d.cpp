// The transposed convolution is the gradient of a convolution from y (N,H,W,C_out) to x (N,P,Q,C_in): its forward is
// that one's dgrad, its dgrad that one's forward, and its wgrad that one's with x and dy changed about.
#include "core/check.hpp"
#include "core/dispatch.hpp"
#include "ops/conv2d_shape.hpp"

namespace stapes::ops {
namespace {

// The convolution that leads from y to x. w is (C_in,R,S,C_out).
Conv2dShape transposed_shape(const char* op, const Shape& x, const Shape& w, Pair stride, const Padding& padding,
                             Pair output_padding) {
  const auto require = [&](bool ok, const auto&... rule) {
    if (!ok) throw std::invalid_argument(cat(op, ": ", rule..., "; x=", to_string(x), ", w=", to_string(w)));
  };
  require(x.ndim() == 4, "x must have 4 dimensions (N,H,W,C), got ", x.ndim());
  require(w.ndim() == 4, "w must have 4 dimensions (C_in,R,S,C_out), got ", w.ndim());
  require(w[0] == x[3], "w.C_in (", w[0], ") must equal x.C (", x[3], ")");
  const Pair out = conv_transpose2d_size(op, x[1], x[2], {w[1], w[2]}, stride, padding, output_padding);
  return conv2d_shape(op, {x[0], out[0], out[1], w[3]}, w, stride, padding, {1, 1}, 1);
}

Shape output_shape(const Conv2dShape& s) { return {s.N, s.H, s.W, s.C}; }

}  // namespace

Shape conv_transpose2d_fwd_shape(const Shape& x, const Shape& w, Pair stride, const Padding& padding,
                                 Pair output_padding) {
  return output_shape(transposed_shape("conv_transpose2d_fwd", x, w, stride, padding, output_padding));
}

void conv_transpose2d_fwd(const Tensor& x, const Tensor& w, const OptionalTensor& b, const Tensor& y, Pair stride,
                          const Padding& padding, Pair output_padding, Precision precision) {
  const char* op = "conv_transpose2d_fwd";
  const Check check(op, {in("x", x), in("w", w), in("b", b), out("y", y)});
  check.computes("x", x);
  check.dtype("w", w, x.dtype);
  check.precision(x, precision);
  const Conv2dShape s = transposed_shape(op, x.shape, w.shape, stride, padding, output_padding);
  if (b) check.wide("b", *b, x, {s.C});
  check.matches("y", y, x, output_shape(s));
  run<cpu::conv2d_dgrad, cuda::conv2d_dgrad>(
      op, x, Conv2dDgradArgs{x.data, w.data, b ? b->data : nullptr, y.data, s, x.dtype, precision});
}

void conv_transpose2d_dgrad(const Tensor& dy, const Tensor& w, const Tensor& dx, Pair stride, const Padding& padding,
                            Pair output_padding, Precision precision) {
  const char* op = "conv_transpose2d_dgrad";
  const Check check(op, {in("dy", dy), in("w", w), out("dx", dx)});
  check.computes("dy", dy);
  check.dtype("w", w, dy.dtype);
  check.dtype("dx", dx, dy.dtype);
  check.precision(dy, precision);
  const Conv2dShape s = transposed_shape(op, dx.shape, w.shape, stride, padding, output_padding);
  check.shape("dy", dy, output_shape(s));
  run<cpu::conv2d_fwd, cuda::conv2d_fwd>(
      op, dy, Conv2dFwdArgs{dy.data, w.data, nullptr, dx.data, s, false, dy.dtype, precision});
}

void conv_transpose2d_wgrad(const Tensor& dy, const Tensor& x, const Tensor& dw, Pair stride, const Padding& padding,
                            Pair output_padding, Precision precision) {
  const char* op = "conv_transpose2d_wgrad";
  const Check check(op, {in("dy", dy), in("x", x), out("dw", dw)});
  check.computes("dy", dy);
  check.dtype("x", x, dy.dtype);
  check.dtype("dw", dw, wide_of(dy.dtype));
  check.precision(x, precision);
  const Conv2dShape s = transposed_shape(op, x.shape, dw.shape, stride, padding, output_padding);
  check.shape("dy", dy, output_shape(s));
  run<cpu::conv2d_wgrad, cuda::conv2d_wgrad>(op, dy, Conv2dWgradArgs{x.data, dy.data, dw.data, s, dy.dtype, precision});
}

}  // namespace stapes::ops
