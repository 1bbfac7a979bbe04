#include "ops/conv2d_shape.hpp"

#include "core/check.hpp"

namespace stapes::ops {

Conv2dShape conv2d_shape(const char* op, const Shape& x, const Shape& w, Pair stride, const Padding& padding,
                         Pair dilation, std::int64_t groups) {
  const auto require = [&](bool ok, const auto&... rule) {
    if (ok) return;
    throw std::invalid_argument(cat(op, ": ", rule..., "; x=", to_string(x), ", w=", to_string(w)));
  };
  require(x.ndim() == 4, "x must have 4 dimensions (N,H,W,C), got ", x.ndim());
  require(w.ndim() == 4, "w must have 4 dimensions (K,R,S,C), got ", w.ndim());
  require(groups >= 1, "groups must be at least 1, got ", groups);
  const std::int64_t C = x[3], K = w[0];
  require(C >= 1 && K >= 1, "C (", C, ") and K (", K, ") must be at least 1");
  require(C % groups == 0, "x.C (", C, ") must be a multiple of groups (", groups, ")");
  require(K % groups == 0, "K (", K, ") must be a multiple of groups (", groups, ")");
  if (groups == 1) {
    require(w[3] == C, "w.C (", w[3], ") must equal x.C (", C, ")");
  } else {
    require(w[3] == C / groups, "w.C (", w[3], ") must equal x.C / groups (", C, " / ", groups, ")");
  }
  return {x[0], x[1], x[2], C, K, groups, window2d(op, x[1], x[2], {w[1], w[2]}, stride, padding, dilation)};
}

}  // namespace stapes::ops
