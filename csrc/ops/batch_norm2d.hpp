// What the operators that normalise by channel ask of their arguments.
#pragma once

#include "core/check.hpp"
#include "ops/ops.hpp"

namespace stapes::ops {

inline std::int64_t rows_of(const Tensor& x) { return x.shape[0] * x.shape[1] * x.shape[2]; }

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

// Mean and rstd.
void check_statistics(const Check& check, const Tensor& x, const Tensor& mean, const Tensor& rstd);
// kept: (4, C), which are mean, scale, shift and rstd.
void check_kept(const Check& check, const Tensor& x, const Tensor& kept);
// The arguments of an operator whose mean and rstd are those in `kept`; y, dy and dx may be null.
BatchNorm2dFwdArgs kept_norm_fwd(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& running_mean,
                                 const Tensor& running_var, bool training, double momentum, double eps, void* y,
                                 const Tensor& kept);
BatchNorm2dBwdArgs kept_norm_bwd(const void* dy, const Tensor& x, const Tensor& gamma, const Tensor& kept,
                                 bool training, void* dx, const Tensor& dgamma, const Tensor& dbeta);
PooledMap pooled_map(const char* op, const Shape& x, Pair pool);
Shape pooled_shape(const PooledMap& m);

void check_batch_norm_fwd(const Check& check, const Tensor& x, const Tensor& gamma, const Tensor& beta,
                          const Tensor& running_mean, const Tensor& running_var, bool training, double momentum,
                          double eps);
void check_batch_norm_bwd(const Check& check, const Tensor& x, const Tensor& gamma, const Tensor& dx,
                          const Tensor& dgamma, const Tensor& dbeta);

}  // namespace stapes::ops
