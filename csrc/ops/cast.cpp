#include "core/check.hpp"
#include "core/dispatch.hpp"
#include "ops/ops.hpp"

namespace stapes::ops {

void cast(const Tensor& x, const Tensor& y) {
  const Check check("cast", {in("x", x), out("y", y)});
  check.computes("x", x);
  check.computes("y", y);
  check.shape("y", y, x.shape);
  run<cpu::cast, cuda::cast>("cast", x, CastArgs{x.data, y.data, x.numel(), x.dtype, y.dtype});
}

}  // namespace stapes::ops
