#include "core/dispatch.hpp"
#include "ops/batch_norm2d.hpp"
#include "ops/conv2d_shape.hpp"

namespace stapes::ops {
namespace {

// The convolution's output, of which there is only the shape.
Tensor output_of(const Tensor& x, const Conv2dShape& s) {
  Tensor u = x;
  u.shape = {s.N, s.window.P, s.window.Q, s.K};
  return u;
}

void check_pooled(const Check& check, const char* name, const Tensor& t, const Tensor& argmax, const Tensor& u,
                  const PooledMap& map) {
  check.matches(name, t, u, pooled_shape(map));
  check.dtype("argmax", argmax, DType::kUInt8);
  check.shape("argmax", argmax, pooled_shape(map));
}

void check_conv(const Check& check, const Tensor& x, const Tensor& w, const OptionalTensor& b, std::int64_t K,
                Precision precision) {
  check.dtype("w", w, x.dtype);
  check.precision(x, precision);
  if (b) check.wide("b", *b, x, {K});
}

}  // namespace

Shape conv2d_batch_norm2d_relu_max_pool2d_shape(const Shape& x, const Shape& w, Pair pool, Pair stride,
                                                const Padding& padding) {
  const char* op = "conv2d_batch_norm2d_relu_max_pool2d_fwd";
  const Conv2dShape s = conv2d_shape(op, x, w, stride, padding, {1, 1}, 1);
  return pooled_shape(pooled_map(op, {s.N, s.window.P, s.window.Q, s.K}, pool));
}

void conv2d_batch_norm2d_relu_max_pool2d_fwd(const Tensor& x, const Tensor& w, const OptionalTensor& b,
                                             const Tensor& gamma, const Tensor& beta, const Tensor& running_mean,
                                             const Tensor& running_var, bool training, double momentum, double eps,
                                             const Tensor& y, const Tensor& argmax, const Tensor& mean,
                                             const Tensor& rstd, Pair pool, Pair stride, const Padding& padding,
                                             Precision precision) {
  const char* op = "conv2d_batch_norm2d_relu_max_pool2d_fwd";
  const Role running = training ? Role::kOut : Role::kIn;
  const Check check(op, {in("x", x), in("w", w), in("b", b), in("gamma", gamma), in("beta", beta),
                         Arg{"running_mean", &running_mean, running}, Arg{"running_var", &running_var, running},
                         out("y", y), out("argmax", argmax), out("mean", mean), out("rstd", rstd)});
  check.computes("x", x);
  const Conv2dShape s = conv2d_shape(op, x.shape, w.shape, stride, padding, {1, 1}, 1);
  const Tensor u = output_of(x, s);
  const PooledMap map = pooled_map(op, u.shape, pool);
  check_conv(check, x, w, b, s.K, precision);
  check_batch_norm_fwd(check, u, gamma, beta, running_mean, running_var, training, momentum, eps);
  check_statistics(check, u, mean, rstd);
  check_pooled(check, "y", y, argmax, u, map);
  const Conv2dFwdArgs conv{x.data, w.data, b ? b->data : nullptr, nullptr, s, false, x.dtype, precision};
  const BatchNorm2dFwdArgs norm{
      nullptr,   gamma.data, beta.data, running_mean.data, running_var.data, y.data, mean.data,
      rstd.data, rows_of(u), s.K,       training,          momentum,         eps,    x.dtype};
  run<cpu::conv2d_batch_norm2d_relu_max_pool2d_fwd, cuda::conv2d_batch_norm2d_relu_max_pool2d_fwd>(
      op, x, Conv2dBatchNorm2dReluMaxPool2dFwdArgs{conv, norm, static_cast<std::uint8_t*>(argmax.data), map});
}

void conv2d_batch_norm2d_relu_max_pool2d_bwd(const Tensor& dy, const Tensor& argmax, const Tensor& x, const Tensor& w,
                                             const OptionalTensor& b, const Tensor& gamma, const Tensor& mean,
                                             const Tensor& rstd, bool training, const Tensor& dw, const Tensor& dgamma,
                                             const Tensor& dbeta, const OptionalTensor& db, Pair pool, Pair stride,
                                             const Padding& padding, Precision precision) {
  const char* op = "conv2d_batch_norm2d_relu_max_pool2d_bwd";
  const Check check(
      op, {in("dy", dy), in("argmax", argmax), in("x", x), in("w", w), in("b", b), in("gamma", gamma), in("mean", mean),
           in("rstd", rstd), out("dw", dw), out("dgamma", dgamma), out("dbeta", dbeta), out("db", db)});
  check.computes("x", x);
  const Conv2dShape s = conv2d_shape(op, x.shape, w.shape, stride, padding, {1, 1}, 1);
  const Tensor u = output_of(x, s);
  const PooledMap map = pooled_map(op, u.shape, pool);
  check_conv(check, x, w, b, s.K, precision);
  const ChannelCheck per_channel(check, u);
  per_channel("gamma", gamma);
  check_statistics(check, u, mean, rstd);
  check_pooled(check, "dy", dy, argmax, u, map);
  check.wide("dw", dw, x, w.shape);
  per_channel("dgamma", dgamma);
  per_channel("dbeta", dbeta);
  if (db) check.wide("db", *db, x, {s.K});
  const Conv2dFwdArgs conv{x.data, w.data, b ? b->data : nullptr, nullptr, s, false, x.dtype, precision};
  const BatchNorm2dBwdArgs norm{dy.data,     nullptr,    gamma.data, mean.data, rstd.data, nullptr,
                                dgamma.data, dbeta.data, rows_of(u), s.K,       training,  x.dtype};
  bool argmax_valid = true;
  run<cpu::conv2d_batch_norm2d_relu_max_pool2d_bwd, cuda::conv2d_batch_norm2d_relu_max_pool2d_bwd>(
      op, x,
      Conv2dBatchNorm2dReluMaxPool2dBwdArgs{conv, norm, static_cast<const std::uint8_t*>(argmax.data), map, dw.data,
                                            db ? db->data : nullptr, &argmax_valid});
  check.require(argmax_valid, "argmax must hold places r * pool_w + s of the window, or 255 (dead); got others");
}

}  // namespace stapes::ops
