#include "core/check.hpp"
#include "core/dispatch.hpp"
#include "ops/ops.hpp"

namespace stapes::ops {

void mse_fwd(const Tensor& y, const Tensor& target, const Tensor& loss) {
  const Check check("mse_fwd", {in("y", y), in("target", target), out("loss", loss)});
  check.computes("y", y);
  check.matches("target", target, y, y.shape);
  check.wide("loss", loss, y, {});
  run<cpu::mse_fwd, cuda::mse_fwd>("mse_fwd", y, MseFwdArgs{y.data, target.data, loss.data, y.numel(), y.dtype});
}

void mse_bwd(const Tensor& y, const Tensor& target, const Scalar<double>& scale, const Tensor& dy) {
  Check check("mse_bwd", {in("y", y), in("target", target), out("dy", dy)});
  check.computes("y", y);
  check.matches("target", target, y, y.shape);
  check.matches("dy", dy, y, y.shape);
  run<cpu::mse_bwd, cuda::mse_bwd>(
      "mse_bwd", y, MseBwdArgs{y.data, target.data, dy.data, y.numel(), check.number("scale", scale, y), y.dtype});
}

}  // namespace stapes::ops
