// Convolutions of one or three input channels, as the first layer of a network has them.
#pragma once

#include "ops/kernels.hpp"

namespace stapes::cuda {

// False, and nothing done, where C is another one, or the sizes (or the pooling) are such that they do not take them.
// All dtypes are computed by exact float32 multiply-adds, whatever the precision.
bool first_layer_fwd(const Conv2dFwdArgs& args, Stream stream);
bool first_layer_wgrad(const Conv2dWgradArgs& args, Stream stream);

// With ReLU and pooling behind the convolution; the second gives dw and db, and leaves dx alone.
bool first_layer_relu_max_pool2d_fwd(const Conv2dReluMaxPool2dFwdArgs& args, Stream stream);
bool first_layer_relu_max_pool2d_wgrad(const Conv2dReluMaxPool2dBwdArgs& args, Stream stream);

}  // namespace stapes::cuda
