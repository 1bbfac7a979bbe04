#include <limits>

#include "core/check.hpp"
#include "core/dispatch.hpp"
#include "ops/ops.hpp"

namespace stapes::ops {
namespace {

// Padding at most half the window: then every window has a place in the image.
Window2d window_of(const char* op, const Check& check, const Shape& x, Pair kernel, Pair stride,
                   const Padding& padding) {
  const Window2d w = window2d(op, x[1], x[2], kernel, stride, padding);
  const bool fits = w.pad_top <= w.kernel_h / 2 && w.pad_bottom <= w.kernel_h / 2 && w.pad_left <= w.kernel_w / 2 &&
                    w.pad_right <= w.kernel_w / 2;
  check.require(fits, "padding must be at most kernel // 2; got padding ((", w.pad_top, ",", w.pad_bottom, "),(",
                w.pad_left, ",", w.pad_right, ")), kernel (", w.kernel_h, ",", w.kernel_w, ")");
  check.require(w.kernel_h * w.kernel_w <= std::numeric_limits<std::int32_t>::max(),
                "the window must have at most 2^31 - 1 places, got kernel (", w.kernel_h, ",", w.kernel_w, ")");
  return w;
}

}  // namespace

void max_pool2d_fwd(const Tensor& x, const Tensor& y, const Tensor& argmax, Pair kernel, Pair stride,
                    const Padding& padding) {
  const Check check("max_pool2d_fwd", {in("x", x), out("y", y), out("argmax", argmax)});
  check.computes("x", x);
  check.ndim("x", x, 4, "(N,H,W,C)");
  const Window2d w = window_of("max_pool2d_fwd", check, x.shape, kernel, stride, padding);
  check.matches("y", y, x, {x.shape[0], w.P, w.Q, x.shape[3]});
  check.dtype("argmax", argmax, argmax_dtype(kernel));
  check.shape("argmax", argmax, y.shape);
  run<cpu::max_pool2d_fwd, cuda::max_pool2d_fwd>("max_pool2d_fwd", x,
                                                 MaxPool2dFwdArgs{x.data, y.data, argmax.data, x.shape[0], x.shape[1],
                                                                  x.shape[2], x.shape[3], w, x.dtype, argmax.dtype});
}

void max_pool2d_bwd(const Tensor& dy, const Tensor& argmax, const Tensor& dx, const Shape& x_shape, Pair kernel,
                    Pair stride, const Padding& padding) {
  const Check check("max_pool2d_bwd", {in("dy", dy), in("argmax", argmax), out("dx", dx)});
  check.computes("dy", dy);
  check.require(x_shape.ndim() == 4, "x_shape must be (N,H,W,C), got ", to_string(x_shape));
  const Window2d w = window_of("max_pool2d_bwd", check, x_shape, kernel, stride, padding);
  check.shape("dy", dy, {x_shape[0], w.P, w.Q, x_shape[3]});
  check.dtype("argmax", argmax, argmax_dtype(kernel));
  check.shape("argmax", argmax, dy.shape);
  check.matches("dx", dx, dy, x_shape);
  bool argmax_valid = true;
  run<cpu::max_pool2d_bwd, cuda::max_pool2d_bwd>(
      "max_pool2d_bwd", dy,
      MaxPool2dBwdArgs{dy.data, argmax.data, dx.data, x_shape[0], x_shape[1], x_shape[2], x_shape[3], w, dy.dtype,
                       argmax.dtype, &argmax_valid});
  check.require(argmax_valid, "argmax must hold places r * kernel_w + s of the window that lie in the image",
                argmax.dtype == DType::kUInt8 ? " (or 255: none)" : "", "; got others");
}

}  // namespace stapes::ops
