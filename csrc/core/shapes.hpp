// How a window slides over an image: the only place with the output-size formula and with "same".
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "core/tensor.hpp"

namespace stapes {

using Pair = std::array<std::int64_t, 2>;                    // (h, w)
using Padding = std::optional<std::array<std::int64_t, 4>>;  // (top, bottom, left, right); none: "same"

// Places are r * dil_h, s * dil_w from the window's corner; the corner of output (p, q) is at
// (p * stride_h - pad_top, q * stride_w - pad_left). Every window lies inside the padded image.
struct Window2d {
  std::int64_t kernel_h, kernel_w;
  std::int64_t stride_h, stride_w;
  std::int64_t dil_h, dil_w;
  std::int64_t pad_top, pad_bottom, pad_left, pad_right;
  std::int64_t P, Q;  // output size, at least 1
};

// Checks the values and resolves "same". std::invalid_argument, naming the operator, unless H, W,
// kernel, stride, dilation, P, Q >= 1 and padding >= 0.
Window2d window2d(const char* op, std::int64_t H, std::int64_t W, Pair kernel, Pair stride, const Padding& padding,
                  Pair dilation = {1, 1});

// (H, W) of a transposed convolution of P x Q: (P - 1) * stride + kernel - padding + output_padding, or P * stride for
// "same". output_padding must be less than stride, so that a convolution of the result is P x Q again.
Pair conv_transpose2d_size(const char* op, std::int64_t P, std::int64_t Q, Pair kernel, Pair stride,
                           const Padding& padding, Pair output_padding);

// The output (N,P,Q,C) of pooling x (N,H,W,C).
Shape pool2d_shape(const char* op, const Shape& x, Pair kernel, Pair stride, const Padding& padding);

// The output (N,C) of pooling whole images, which must have a pixel.
Shape global_pool2d_shape(const char* op, const Shape& x);

// Of max pooling: uint8 where the window has at most 255 places (255 then means none of them), else int32.
DType argmax_dtype(Pair kernel);

// The output of upsampling x by scale, and the input whose upsampling is dy.
Shape upsample2d_shape(const char* op, const Shape& x, Pair scale);
Shape downsample2d_shape(const char* op, const Shape& dy, Pair scale);

}  // namespace stapes
