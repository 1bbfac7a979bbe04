// Depthwise convolutions: one input channel a group, one or more output channels of each.
#pragma once

#include "ops/kernels.hpp"

namespace stapes::cuda {

inline bool is_depthwise(const Conv2dShape& s) { return s.groups == s.C && s.C > 1; }

// False, and nothing done, where the convolution is not depthwise, or its coordinates need more than an int.
bool depthwise_fwd(const Conv2dFwdArgs& args, Stream stream);
bool depthwise_dgrad(const Conv2dDgradArgs& args, Stream stream);
bool depthwise_wgrad(const Conv2dWgradArgs& args, Stream stream);

}  // namespace stapes::cuda
