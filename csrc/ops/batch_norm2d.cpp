#include "core/check.hpp"
#include "core/dispatch.hpp"
#include "ops/ops.hpp"

namespace stapes::ops {
namespace {

// Per-channel arrays are float64 beside float64 activations and float32 beside all others.
struct ChannelCheck {
  const Check& check;
  Shape shape;
  DType dtype;

  ChannelCheck(const Check& check_, const Tensor& x) : check(check_), dtype(wide_of(x.dtype)) {
    check.computes("x", x);
    check.ndim("x", x, 4, "(N,H,W,C)");
    check.require(x.shape[3] > 0, "x must have at least 1 channel");
    shape = {x.shape[3]};
  }

  void operator()(const char* name, const Tensor& t) const {
    check.dtype(name, t, dtype);
    check.shape(name, t, shape);
  }
};

std::int64_t rows_of(const Tensor& x) { return x.shape[0] * x.shape[1] * x.shape[2]; }

}  // namespace

void batch_norm2d_fwd(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& running_mean,
                      const Tensor& running_var, bool training, double momentum, double eps, const Tensor& y,
                      const Tensor& mean, const Tensor& rstd) {
  const Role running = training ? Role::kOut : Role::kIn;
  const Check check("batch_norm2d_fwd",
                    {in("x", x), in("gamma", gamma), in("beta", beta), Arg{"running_mean", &running_mean, running},
                     Arg{"running_var", &running_var, running}, out("y", y), out("mean", mean), out("rstd", rstd)});
  const ChannelCheck per_channel(check, x);
  per_channel("gamma", gamma);
  per_channel("beta", beta);
  per_channel("running_mean", running_mean);
  per_channel("running_var", running_var);
  per_channel("mean", mean);
  per_channel("rstd", rstd);
  check.matches("y", y, x, x.shape);
  check.require(eps >= 0, "eps must be at least 0, got ", eps);
  check.require(momentum >= 0 && momentum <= 1, "momentum must be in [0, 1], got ", momentum);
  check.require(!training || rows_of(x) > 1, "training needs more than 1 value per channel (N*H*W), got ", rows_of(x));
  run<cpu::batch_norm2d_fwd, cuda::batch_norm2d_fwd>(
      "batch_norm2d_fwd", x,
      BatchNorm2dFwdArgs{x.data, gamma.data, beta.data, running_mean.data, running_var.data, y.data, mean.data,
                         rstd.data, rows_of(x), x.shape[3], training, momentum, eps, x.dtype});
}

void batch_norm2d_bwd(const Tensor& dy, const Tensor& x, const Tensor& gamma, const Tensor& mean, const Tensor& rstd,
                      bool training, const Tensor& dx, const Tensor& dgamma, const Tensor& dbeta) {
  const Check check("batch_norm2d_bwd", {in("dy", dy), in("x", x), in("gamma", gamma), in("mean", mean),
                                         in("rstd", rstd), out("dx", dx), out("dgamma", dgamma), out("dbeta", dbeta)});
  const ChannelCheck per_channel(check, x);
  check.matches("dy", dy, x, x.shape);
  per_channel("gamma", gamma);
  per_channel("mean", mean);
  per_channel("rstd", rstd);
  check.matches("dx", dx, x, x.shape);
  per_channel("dgamma", dgamma);
  per_channel("dbeta", dbeta);
  run<cpu::batch_norm2d_bwd, cuda::batch_norm2d_bwd>(
      "batch_norm2d_bwd", x,
      BatchNorm2dBwdArgs{dy.data, x.data, gamma.data, mean.data, rstd.data, dx.data, dgamma.data, dbeta.data,
                         rows_of(x), x.shape[3], training, x.dtype});
}

}  // namespace stapes::ops
