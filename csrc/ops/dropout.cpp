#include "core/check.hpp"
#include "core/dispatch.hpp"
#include "ops/ops.hpp"

namespace stapes::ops {
namespace {

void dropout(const char* op, Check& check, const Tensor& x, const char* out_name, const Tensor& y, double p,
             std::uint64_t seed, const Scalar<std::uint64_t>& offset) {
  check.require(p >= 0 && p < 1, "p must be at least 0 and below 1, got ", p);
  check.matches(out_name, y, x, x.shape);
  run<cpu::dropout, cuda::dropout>(op, x,
                                   DropoutArgs{x.data, y.data, x.numel(), p, seed, check.offset(offset, x), x.dtype});
}

}  // namespace

void dropout_fwd(const Tensor& x, const Tensor& y, double p, std::uint64_t seed, const Scalar<std::uint64_t>& offset) {
  Check check("dropout_fwd", {in("x", x), in_place_out("y", y)});
  check.computes("x", x);
  dropout("dropout_fwd", check, x, "y", y, p, seed, offset);
}

void dropout_bwd(const Tensor& dy, const Tensor& dx, double p, std::uint64_t seed,
                 const Scalar<std::uint64_t>& offset) {
  Check check("dropout_bwd", {in("dy", dy), in_place_out("dx", dx)});
  check.computes("dy", dy);
  dropout("dropout_bwd", check, dy, "dx", dx, p, seed, offset);
}

}  // namespace stapes::ops
