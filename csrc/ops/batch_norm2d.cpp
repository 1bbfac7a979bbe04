#include "ops/batch_norm2d.hpp"

#include "core/dispatch.hpp"

namespace stapes::ops {
namespace {

void* row_of(const Tensor& kept, std::int64_t row) {
  return static_cast<char*>(kept.data) + row * kept.shape[1] * static_cast<std::int64_t>(size_of(kept.dtype));
}

}  // namespace

PooledMap pooled_map(const char* op, const Shape& x, Pair pool) {
  constexpr std::int64_t kMostPlaces = 255;  // of a window: argmax is uint8, and 255 means dead
  const auto require = [&](bool ok, const auto&... rule) {
    if (!ok) throw std::invalid_argument(cat(op, ": ", rule..., ", got (", pool[0], ",", pool[1], ")"));
  };
  if (x.ndim() != 4) throw std::invalid_argument(cat(op, ": x must have 4 dimensions (N,H,W,C), got ", to_string(x)));
  require(pool[0] >= 1 && pool[1] >= 1, "pool must be at least 1");
  require(pool[0] <= kMostPlaces && pool[1] <= kMostPlaces && pool[0] * pool[1] <= kMostPlaces,
          "pool must have at most 255 places");
  require(pool[0] <= x[1] && pool[1] <= x[2], "pool must fit into x's height and width (", x[1], ",", x[2], ")");
  return {x[0], x[1], x[2], x[3], pool[0], pool[1]};
}

void check_statistics(const Check& check, const Tensor& x, const Tensor& mean, const Tensor& rstd) {
  const ChannelCheck per_channel(check, x);
  per_channel("mean", mean);
  per_channel("rstd", rstd);
}

void check_kept(const Check& check, const Tensor& x, const Tensor& kept) {
  check.wide("norm", kept, x, {4, x.shape[3]});
}

BatchNorm2dFwdArgs kept_norm_fwd(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& running_mean,
                                 const Tensor& running_var, bool training, double momentum, double eps, void* y,
                                 const Tensor& kept) {
  return {x.data,          gamma.data, beta.data,  running_mean.data, running_var.data, y,   row_of(kept, 0),
          row_of(kept, 3), rows_of(x), x.shape[3], training,          momentum,         eps, x.dtype};
}

BatchNorm2dBwdArgs kept_norm_bwd(const void* dy, const Tensor& x, const Tensor& gamma, const Tensor& kept,
                                 bool training, void* dx, const Tensor& dgamma, const Tensor& dbeta) {
  return {dy,          x.data,     gamma.data, row_of(kept, 0), row_of(kept, 3), dx,
          dgamma.data, dbeta.data, rows_of(x), x.shape[3],      training,        x.dtype};
}

Shape pooled_shape(const PooledMap& m) { return {m.N, m.H / m.pool_h, m.W / m.pool_w, m.C}; }

void check_batch_norm_fwd(const Check& check, const Tensor& x, const Tensor& gamma, const Tensor& beta,
                          const Tensor& running_mean, const Tensor& running_var, bool training, double momentum,
                          double eps) {
  const ChannelCheck per_channel(check, x);
  per_channel("gamma", gamma);
  per_channel("beta", beta);
  per_channel("running_mean", running_mean);
  per_channel("running_var", running_var);
  check.require(eps >= 0, "eps must be at least 0, got ", eps);
  check.require(momentum >= 0 && momentum <= 1, "momentum must be in [0, 1], got ", momentum);
  check.require(!training || rows_of(x) > 1, "training needs more than 1 value per channel (N*H*W), got ", rows_of(x));
}

void check_batch_norm_bwd(const Check& check, const Tensor& x, const Tensor& gamma, const Tensor& dx,
                          const Tensor& dgamma, const Tensor& dbeta) {
  const ChannelCheck per_channel(check, x);
  per_channel("gamma", gamma);
  check.matches("dx", dx, x, x.shape);
  per_channel("dgamma", dgamma);
  per_channel("dbeta", dbeta);
}

void batch_norm2d_fwd(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& running_mean,
                      const Tensor& running_var, bool training, double momentum, double eps, const Tensor& y,
                      const Tensor& mean, const Tensor& rstd) {
  const Role running = training ? Role::kOut : Role::kIn;
  const Check check("batch_norm2d_fwd",
                    {in("x", x), in("gamma", gamma), in("beta", beta), Arg{"running_mean", &running_mean, running},
                     Arg{"running_var", &running_var, running}, out("y", y), out("mean", mean), out("rstd", rstd)});
  check_batch_norm_fwd(check, x, gamma, beta, running_mean, running_var, training, momentum, eps);
  check_statistics(check, x, mean, rstd);
  check.matches("y", y, x, x.shape);
  run<cpu::batch_norm2d_fwd, cuda::batch_norm2d_fwd>(
      "batch_norm2d_fwd", x,
      BatchNorm2dFwdArgs{x.data, gamma.data, beta.data, running_mean.data, running_var.data, y.data, mean.data,
                         rstd.data, rows_of(x), x.shape[3], training, momentum, eps, x.dtype});
}

void batch_norm2d_bwd(const Tensor& dy, const Tensor& x, const Tensor& gamma, const Tensor& mean, const Tensor& rstd,
                      bool training, const Tensor& dx, const Tensor& dgamma, const Tensor& dbeta) {
  const Check check("batch_norm2d_bwd", {in("dy", dy), in("x", x), in("gamma", gamma), in("mean", mean),
                                         in("rstd", rstd), out("dx", dx), out("dgamma", dgamma), out("dbeta", dbeta)});
  check_batch_norm_bwd(check, x, gamma, dx, dgamma, dbeta);
  check_statistics(check, x, mean, rstd);
  check.matches("dy", dy, x, x.shape);
  run<cpu::batch_norm2d_bwd, cuda::batch_norm2d_bwd>(
      "batch_norm2d_bwd", x,
      BatchNorm2dBwdArgs{dy.data, x.data, gamma.data, mean.data, rstd.data, dx.data, dgamma.data, dbeta.data,
                         rows_of(x), x.shape[3], training, x.dtype});
}

Shape batch_norm2d_relu_max_pool2d_shape(const Shape& x, Pair pool) {
  return pooled_shape(pooled_map("batch_norm2d_relu_max_pool2d_fwd", x, pool));
}

void batch_norm2d_relu_max_pool2d_fwd(const Tensor& x, const Tensor& gamma, const Tensor& beta,
                                      const Tensor& running_mean, const Tensor& running_var, Pair pool, bool training,
                                      double momentum, double eps, const Tensor& y, const Tensor& argmax,
                                      const Tensor& mean, const Tensor& rstd) {
  const char* op = "batch_norm2d_relu_max_pool2d_fwd";
  const Role running = training ? Role::kOut : Role::kIn;
  const Check check(op, {in("x", x), in("gamma", gamma), in("beta", beta), Arg{"running_mean", &running_mean, running},
                         Arg{"running_var", &running_var, running}, out("y", y), out("argmax", argmax),
                         out("mean", mean), out("rstd", rstd)});
  check_batch_norm_fwd(check, x, gamma, beta, running_mean, running_var, training, momentum, eps);
  check_statistics(check, x, mean, rstd);
  const PooledMap map = pooled_map(op, x.shape, pool);
  check.matches("y", y, x, pooled_shape(map));
  check.dtype("argmax", argmax, DType::kUInt8);
  check.shape("argmax", argmax, pooled_shape(map));
  const BatchNorm2dFwdArgs norm{x.data,    gamma.data, beta.data,  running_mean.data, running_var.data, y.data,
                                mean.data, rstd.data,  rows_of(x), x.shape[3],        training,         momentum,
                                eps,       x.dtype};
  run<cpu::batch_norm2d_relu_max_pool2d_fwd, cuda::batch_norm2d_relu_max_pool2d_fwd>(
      op, x, BatchNorm2dReluMaxPool2dFwdArgs{norm, static_cast<std::uint8_t*>(argmax.data), map});
}

void batch_norm2d_relu_max_pool2d_bwd(const Tensor& dy, const Tensor& argmax, const Tensor& x, const Tensor& gamma,
                                      const Tensor& mean, const Tensor& rstd, Pair pool, bool training,
                                      const Tensor& dx, const Tensor& dgamma, const Tensor& dbeta) {
  const char* op = "batch_norm2d_relu_max_pool2d_bwd";
  const Check check(op, {in("dy", dy), in("argmax", argmax), in("x", x), in("gamma", gamma), in("mean", mean),
                         in("rstd", rstd), out("dx", dx), out("dgamma", dgamma), out("dbeta", dbeta)});
  check_batch_norm_bwd(check, x, gamma, dx, dgamma, dbeta);
  check_statistics(check, x, mean, rstd);
  const PooledMap map = pooled_map(op, x.shape, pool);
  check.matches("dy", dy, x, pooled_shape(map));
  check.dtype("argmax", argmax, DType::kUInt8);
  check.shape("argmax", argmax, pooled_shape(map));
  const BatchNorm2dBwdArgs norm{dy.data,     x.data,     gamma.data, mean.data,  rstd.data, dx.data,
                                dgamma.data, dbeta.data, rows_of(x), x.shape[3], training,  x.dtype};
  bool argmax_valid = true;
  run<cpu::batch_norm2d_relu_max_pool2d_bwd, cuda::batch_norm2d_relu_max_pool2d_bwd>(
      op, x, BatchNorm2dReluMaxPool2dBwdArgs{norm, static_cast<const std::uint8_t*>(argmax.data), map, &argmax_valid});
  check.require(argmax_valid, "argmax must hold places r * pool_w + s of the window, or 255 (dead); got others");
}

}  // namespace stapes::ops
