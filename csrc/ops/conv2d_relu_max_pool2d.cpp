#include "core/check.hpp"
#include "core/dispatch.hpp"
#include "ops/conv2d_shape.hpp"

namespace stapes::ops {
namespace {

constexpr std::int64_t kMostPlaces = 255;  // of a window: argmax is uint8, and 255 means dead

Shape pooled_shape(const char* op, const Conv2dShape& s, Pair pool) {
  const auto require = [&](bool ok, const auto&... rule) {
    if (!ok) throw std::invalid_argument(cat(op, ": ", rule..., ", got (", pool[0], ",", pool[1], ")"));
  };
  require(pool[0] >= 1 && pool[1] >= 1, "pool must be at least 1");
  require(pool[0] <= kMostPlaces && pool[1] <= kMostPlaces && pool[0] * pool[1] <= kMostPlaces,
          "pool must have at most 255 places");
  require(pool[0] <= s.window.P && pool[1] <= s.window.Q, "pool must fit into the convolution's output (", s.window.P,
          ",", s.window.Q, ")");
  return {s.N, s.window.P / pool[0], s.window.Q / pool[1], s.K};
}

}  // namespace

Shape conv2d_relu_max_pool2d_shape(const Shape& x, const Shape& w, Pair pool, Pair stride, const Padding& padding) {
  const char* op = "conv2d_relu_max_pool2d_fwd";
  return pooled_shape(op, conv2d_shape(op, x, w, stride, padding, {1, 1}, 1), pool);
}

void conv2d_relu_max_pool2d_fwd(const Tensor& x, const Tensor& w, const OptionalTensor& b, const Tensor& y,
                                const Tensor& argmax, Pair pool, Pair stride, const Padding& padding,
                                Precision precision) {
  const char* op = "conv2d_relu_max_pool2d_fwd";
  const Check check(op, {in("x", x), in("w", w), in("b", b), out("y", y), out("argmax", argmax)});
  check.computes("x", x);
  check.dtype("w", w, x.dtype);
  check.precision(x, precision);
  const Conv2dShape s = conv2d_shape(op, x.shape, w.shape, stride, padding, {1, 1}, 1);
  const Shape pooled = pooled_shape(op, s, pool);
  if (b) check.wide("b", *b, x, {s.K});
  check.matches("y", y, x, pooled);
  check.dtype("argmax", argmax, DType::kUInt8);
  check.shape("argmax", argmax, pooled);
  run<cpu::conv2d_relu_max_pool2d_fwd, cuda::conv2d_relu_max_pool2d_fwd>(
      op, x,
      Conv2dReluMaxPool2dFwdArgs{x.data, w.data, b ? b->data : nullptr, y.data, static_cast<std::uint8_t*>(argmax.data),
                                 s, pool[0], pool[1], x.dtype, precision});
}

void conv2d_relu_max_pool2d_bwd(const Tensor& dy, const Tensor& argmax, const Tensor& x, const Tensor& w,
                                const OptionalTensor& dx, const Tensor& dw, const Tensor& db, Pair pool, Pair stride,
                                const Padding& padding, Precision precision) {
  const char* op = "conv2d_relu_max_pool2d_bwd";
  const Check check(
      op, {in("dy", dy), in("argmax", argmax), in("x", x), in("w", w), out("dx", dx), out("dw", dw), out("db", db)});
  check.computes("x", x);
  check.dtype("w", w, x.dtype);
  check.precision(x, precision);
  const Conv2dShape s = conv2d_shape(op, x.shape, w.shape, stride, padding, {1, 1}, 1);
  const Shape pooled = pooled_shape(op, s, pool);
  check.matches("dy", dy, x, pooled);
  check.dtype("argmax", argmax, DType::kUInt8);
  check.shape("argmax", argmax, pooled);
  if (dx) check.matches("dx", *dx, x, x.shape);
  check.wide("dw", dw, x, w.shape);
  check.wide("db", db, x, {s.K});
  bool argmax_valid = true;
  run<cpu::conv2d_relu_max_pool2d_bwd, cuda::conv2d_relu_max_pool2d_bwd>(
      op, x,
      Conv2dReluMaxPool2dBwdArgs{dy.data, static_cast<const std::uint8_t*>(argmax.data), x.data, w.data,
                                 dx ? dx->data : nullptr, dw.data, db.data, s, pool[0], pool[1], x.dtype, precision,
                                 &argmax_valid});
  check.require(argmax_valid, "argmax must hold places r * pool_w + s of the window, or 255 (dead); got others");
}

}  // namespace stapes::ops
