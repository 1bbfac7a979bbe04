// linear: y (..., out) = x (..., in) w^T + b, w (out, in): a 1x1 convolution over a row of pixels.
#include "core/check.hpp"
#include "core/dispatch.hpp"
#include "ops/ops.hpp"

namespace stapes::ops {
namespace {

Conv2dShape linear_shape(const Check& check, const Shape& x, const Shape& w) {
  check.require(x.ndim() >= 2, "x must have at least 2 dimensions (..., in), got ", x.ndim());
  check.require(w.ndim() == 2, "w must have 2 dimensions (out, in), got ", w.ndim());
  check.require(w[0] >= 1 && w[1] >= 1, "w must not be empty");
  check.require(x.last() == w[1], "w.in (", w[1], ") must equal the last dimension of x (", x.last(), ")");
  const std::int64_t rows = x.numel() / x.last();
  const Window2d point{1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, rows};
  return {rows > 0 ? 1 : 0, 1, rows, w[1], w[0], 1, point};
}

Shape with_last(const Shape& shape, std::int64_t size) {
  Shape result(shape.begin(), shape.end() - 1);
  result.push_back(size);
  return result;
}

}  // namespace

void linear_fwd(const Tensor& x, const Tensor& w, const OptionalTensor& b, const Tensor& y, bool relu,
                Precision precision) {
  const Check check("linear_fwd", {in("x", x), in("w", w), in("b", b), out("y", y)});
  check.computes("x", x);
  check.dtype("w", w, x.dtype);
  check.precision(x, precision);
  const Conv2dShape s = linear_shape(check, x.shape, w.shape);
  if (b) check.wide("b", *b, x, {s.K});
  check.matches("y", y, x, with_last(x.shape, s.K));
  run<cpu::conv2d_fwd, cuda::conv2d_fwd>(
      "linear_fwd", x, Conv2dFwdArgs{x.data, w.data, b ? b->data : nullptr, y.data, s, relu, x.dtype, precision});
}

void linear_dgrad(const Tensor& dy, const Tensor& w, const Tensor& dx, Precision precision) {
  const Check check("linear_dgrad", {in("dy", dy), in("w", w), out("dx", dx)});
  check.computes("dy", dy);
  check.dtype("w", w, dy.dtype);
  check.dtype("dx", dx, dy.dtype);
  check.precision(dy, precision);
  const Conv2dShape s = linear_shape(check, dx.shape, w.shape);
  check.shape("dy", dy, with_last(dx.shape, s.K));
  run<cpu::conv2d_dgrad, cuda::conv2d_dgrad>(
      "linear_dgrad", dy, Conv2dDgradArgs{dy.data, w.data, nullptr, dx.data, s, dy.dtype, precision});
}

void linear_wgrad(const Tensor& dy, const Tensor& x, const Tensor& dw, Precision precision) {
  const Check check("linear_wgrad", {in("dy", dy), in("x", x), out("dw", dw)});
  check.computes("dy", dy);
  check.dtype("x", x, dy.dtype);
  check.dtype("dw", dw, wide_of(dy.dtype));
  check.precision(x, precision);
  const Conv2dShape s = linear_shape(check, x.shape, dw.shape);
  check.shape("dy", dy, with_last(x.shape, s.K));
  run<cpu::conv2d_wgrad, cuda::conv2d_wgrad>("linear_wgrad", dy,
                                             Conv2dWgradArgs{dy.data, x.data, dw.data, s, dy.dtype, precision});
}

void linear_bgrad(const Tensor& dy, const Tensor& db) {
  const Check check("linear_bgrad", {in("dy", dy), out("db", db)});
  check.computes("dy", dy);
  check.require(dy.shape.ndim() >= 2 && dy.shape.last() >= 1, "dy must have at least 2 dimensions (..., out)");
  const std::int64_t K = dy.shape.last();
  check.wide("db", db, dy, {K});
  run<cpu::conv2d_bgrad, cuda::conv2d_bgrad>("linear_bgrad", dy,
                                             Conv2dBgradArgs{dy.data, db.data, dy.numel() / K, K, dy.dtype});
}

}  // namespace stapes::ops
