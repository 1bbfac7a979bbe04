// The sizes of a convolution, checked; shared by the operators that are convolutions.
#pragma once

#include "ops/ops.hpp"

namespace stapes::ops {

// x (N,H,W,C), w (K,R,S,C/groups). std::invalid_argument naming the operator where they do not fit together.
Conv2dShape conv2d_shape(const char* op, const Shape& x, const Shape& w, Pair stride, const Padding& padding,
                         Pair dilation, std::int64_t groups);

}  // namespace stapes::ops
