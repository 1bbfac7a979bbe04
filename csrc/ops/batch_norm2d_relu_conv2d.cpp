#include "core/dispatch.hpp"
#include "ops/batch_norm2d.hpp"
#include "ops/conv2d_shape.hpp"

namespace stapes::ops {
namespace {

// kept: (4, C), which are mean, scale, shift and rstd.
void check_kept(const Check& check, const Tensor& x, const Tensor& kept) {
  check.wide("norm", kept, x, {4, x.shape[3]});
}

void* row_of(const Tensor& kept, std::int64_t row) {
  return static_cast<char*>(kept.data) + row * kept.shape[1] * static_cast<std::int64_t>(size_of(kept.dtype));
}

}  // namespace

void batch_norm2d_relu_conv2d_fwd(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& running_mean,
                                  const Tensor& running_var, const Tensor& w, const OptionalTensor& b, bool training,
                                  double momentum, double eps, const Tensor& y, const Tensor& norm, Pair stride,
                                  const Padding& padding, Pair dilation, std::int64_t groups, Precision precision) {
  const char* op = "batch_norm2d_relu_conv2d_fwd";
  const Role running = training ? Role::kOut : Role::kIn;
  const Check check(
      op, {in("x", x), in("gamma", gamma), in("beta", beta), Arg{"running_mean", &running_mean, running},
           Arg{"running_var", &running_var, running}, in("w", w), in("b", b), out("y", y), out("norm", norm)});
  check_batch_norm_fwd(check, x, gamma, beta, running_mean, running_var, training, momentum, eps);
  check_kept(check, x, norm);
  check.dtype("w", w, x.dtype);
  check.precision(x, precision);
  const Conv2dShape s = conv2d_shape(op, x.shape, w.shape, stride, padding, dilation, groups);
  if (b) check.wide("b", *b, x, {s.K});
  check.matches("y", y, x, {s.N, s.window.P, s.window.Q, s.K});
  const BatchNorm2dFwdArgs norm_args{
      x.data,          gamma.data, beta.data,  running_mean.data, running_var.data, nullptr, row_of(norm, 0),
      row_of(norm, 3), rows_of(x), x.shape[3], training,          momentum,         eps,     x.dtype};
  const Conv2dFwdArgs conv{nullptr, w.data, b ? b->data : nullptr, y.data, s, false, x.dtype, precision};
  run<cpu::batch_norm2d_relu_conv2d_fwd, cuda::batch_norm2d_relu_conv2d_fwd>(
      op, x, BatchNorm2dReluConv2dFwdArgs{norm_args, norm.data, conv});
}

void batch_norm2d_relu_conv2d_bwd(const Tensor& dy, const Tensor& x, const Tensor& gamma, const Tensor& norm,
                                  const Tensor& w, bool training, const Tensor& dx, const Tensor& dgamma,
                                  const Tensor& dbeta, const Tensor& dw, const OptionalTensor& db, Pair stride,
                                  const Padding& padding, Pair dilation, std::int64_t groups, Precision precision) {
  const char* op = "batch_norm2d_relu_conv2d_bwd";
  const Check check(op, {in("dy", dy), in("x", x), in("gamma", gamma), in("norm", norm), in("w", w), out("dx", dx),
                         out("dgamma", dgamma), out("dbeta", dbeta), out("dw", dw), out("db", db)});
  check_batch_norm_bwd(check, x, gamma, dx, dgamma, dbeta);
  check_kept(check, x, norm);
  check.dtype("w", w, x.dtype);
  check.precision(x, precision);
  const Conv2dShape s = conv2d_shape(op, x.shape, w.shape, stride, padding, dilation, groups);
  check.matches("dy", dy, x, {s.N, s.window.P, s.window.Q, s.K});
  check.wide("dw", dw, x, w.shape);
  if (db) check.wide("db", *db, x, {s.K});
  const BatchNorm2dBwdArgs norm_args{nullptr,     x.data,     gamma.data, row_of(norm, 0), row_of(norm, 3), dx.data,
                                     dgamma.data, dbeta.data, rows_of(x), x.shape[3],      training,        x.dtype};
  const Conv2dDgradArgs conv{dy.data, w.data, nullptr, dx.data, s, x.dtype, precision};
  run<cpu::batch_norm2d_relu_conv2d_bwd, cuda::batch_norm2d_relu_conv2d_bwd>(
      op, x, BatchNorm2dReluConv2dBwdArgs{norm_args, norm.data, conv, dw.data, db ? db->data : nullptr});
}

}  // namespace stapes::ops
