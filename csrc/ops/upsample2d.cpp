#include "core/check.hpp"
#include "core/dispatch.hpp"
#include "ops/ops.hpp"

namespace stapes::ops {

void upsample2d_fwd(const Tensor& x, const Tensor& y, Pair scale) {
  const Check check("upsample2d_fwd", {in("x", x), out("y", y)});
  check.computes("x", x);
  check.matches("y", y, x, upsample2d_shape("upsample2d_fwd", x.shape, scale));
  run<cpu::upsample2d_fwd, cuda::upsample2d_fwd>(
      "upsample2d_fwd", x,
      Upsample2dArgs{x.data, y.data, x.shape[0], x.shape[1], x.shape[2], x.shape[3], scale[0], scale[1], x.dtype});
}

void upsample2d_bwd(const Tensor& dy, const Tensor& dx, Pair scale) {
  const Check check("upsample2d_bwd", {in("dy", dy), out("dx", dx)});
  check.computes("dy", dy);
  check.matches("dx", dx, dy, downsample2d_shape("upsample2d_bwd", dy.shape, scale));
  run<cpu::upsample2d_bwd, cuda::upsample2d_bwd>("upsample2d_bwd", dy,
                                                 Upsample2dArgs{dy.data, dx.data, dx.shape[0], dx.shape[1], dx.shape[2],
                                                                dx.shape[3], scale[0], scale[1], dy.dtype});
}

}  // namespace stapes::ops
