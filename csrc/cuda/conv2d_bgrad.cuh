// The gradient of a bias, from dy or from the gradient of what was pooled behind it.
#pragma once

#include "ops/kernels.hpp"

namespace stapes::cuda {

// conv2d_bgrad of the map before a pooling with windows of `places`: args.dy and argmax are (rows, K), a row being a
// window, whose dy counts where argmax is one of its places.
void pooled_bgrad(const Conv2dBgradArgs& args, const std::uint8_t* argmax, std::int64_t places, Stream stream);

}  // namespace stapes::cuda
