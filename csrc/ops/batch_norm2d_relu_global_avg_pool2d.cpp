#include "core/dispatch.hpp"
#include "ops/batch_norm2d.hpp"

namespace stapes::ops {
namespace {

// y or dy, and what both directions share.
std::int64_t checked_pixels(const char* op, const Check& check, const char* pooled_name, const Tensor& x,
                            const Tensor& pooled, const Tensor& norm, const Tensor& alive) {
  const Shape shape = global_pool2d_shape(op, x.shape);
  check.matches(pooled_name, pooled, x, shape);
  check_kept(check, x, norm);
  check.wide("alive", alive, x, {2, shape[0], shape[1]});
  return x.shape[1] * x.shape[2];
}

}  // namespace

void batch_norm2d_relu_global_avg_pool2d_fwd(const Tensor& x, const Tensor& gamma, const Tensor& beta,
                                             const Tensor& running_mean, const Tensor& running_var, bool training,
                                             double momentum, double eps, const Tensor& y, const Tensor& norm,
                                             const Tensor& alive) {
  const char* op = "batch_norm2d_relu_global_avg_pool2d_fwd";
  const Role running = training ? Role::kOut : Role::kIn;
  const Check check(op,
                    {in("x", x), in("gamma", gamma), in("beta", beta), Arg{"running_mean", &running_mean, running},
                     Arg{"running_var", &running_var, running}, out("y", y), out("norm", norm), out("alive", alive)});
  check_batch_norm_fwd(check, x, gamma, beta, running_mean, running_var, training, momentum, eps);
  const std::int64_t pixels = checked_pixels(op, check, "y", x, y, norm, alive);
  const BatchNorm2dFwdArgs args =
      kept_norm_fwd(x, gamma, beta, running_mean, running_var, training, momentum, eps, y.data, norm);
  run<cpu::batch_norm2d_relu_global_avg_pool2d_fwd, cuda::batch_norm2d_relu_global_avg_pool2d_fwd>(
      op, x, BatchNorm2dReluGlobalAvgPool2dFwdArgs{args, norm.data, alive.data, x.shape[0], pixels});
}

void batch_norm2d_relu_global_avg_pool2d_bwd(const Tensor& dy, const Tensor& x, const Tensor& gamma, const Tensor& norm,
                                             const Tensor& alive, bool training, const Tensor& dx, const Tensor& dgamma,
                                             const Tensor& dbeta) {
  const char* op = "batch_norm2d_relu_global_avg_pool2d_bwd";
  const Check check(op, {in("dy", dy), in("x", x), in("gamma", gamma), in("norm", norm), in("alive", alive),
                         out("dx", dx), out("dgamma", dgamma), out("dbeta", dbeta)});
  check_batch_norm_bwd(check, x, gamma, dx, dgamma, dbeta);
  const std::int64_t pixels = checked_pixels(op, check, "dy", x, dy, norm, alive);
  const BatchNorm2dBwdArgs args = kept_norm_bwd(dy.data, x, gamma, norm, training, dx.data, dgamma, dbeta);
  run<cpu::batch_norm2d_relu_global_avg_pool2d_bwd, cuda::batch_norm2d_relu_global_avg_pool2d_bwd>(
      op, x, BatchNorm2dReluGlobalAvgPool2dBwdArgs{args, norm.data, alive.data, x.shape[0], pixels});
}

}  // namespace stapes::ops
