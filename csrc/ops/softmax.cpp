#include "core/check.hpp"
#include "core/dispatch.hpp"
#include "ops/ops.hpp"

namespace stapes::ops {
namespace {

std::int64_t rows_of(const Check& check, const char* name, const Shape& shape) {
  check.require(shape.ndim() >= 1, name, " must have at least 1 dimension, got ", to_string(shape));
  return shape.last() == 0 ? 0 : shape.numel() / shape.last();
}

}  // namespace

void softmax_fwd(const Tensor& x, const Tensor& y) {
  const Check check("softmax_fwd", {in("x", x), in_place_out("y", y)});
  check.computes("x", x);
  const std::int64_t rows = rows_of(check, "x", x.shape);
  check.matches("y", y, x, x.shape);
  run<cpu::softmax_fwd, cuda::softmax_fwd>("softmax_fwd", x,
                                           SoftmaxFwdArgs{x.data, y.data, rows, x.shape.last(), x.dtype});
}

void softmax_bwd(const Tensor& dy, const Tensor& y, const Tensor& dx) {
  const Check check("softmax_bwd", {in("dy", dy), in("y", y), in_place_out("dx", dx)});
  check.computes("dy", dy);
  const std::int64_t rows = rows_of(check, "dy", dy.shape);
  check.matches("y", y, dy, dy.shape);
  check.matches("dx", dx, dy, dy.shape);
  run<cpu::softmax_bwd, cuda::softmax_bwd>("softmax_bwd", dy,
                                           SoftmaxBwdArgs{dy.data, y.data, dx.data, rows, dy.shape.last(), dy.dtype});
}

}  // namespace stapes::ops
