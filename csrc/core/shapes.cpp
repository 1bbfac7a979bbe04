#include "core/shapes.hpp"

#include <algorithm>
#include <limits>

#include "core/check.hpp"

namespace stapes {
namespace {

// With sizes of 32 bits no product or sum below can overflow 64.
constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max();

void check_range(const char* op, const char* name, std::int64_t value, std::int64_t least) {
  if (value >= least && value <= kLargest) return;
  const std::string rule = value < least ? cat("at least ", least) : cat("at most ", kLargest);
  throw std::invalid_argument(cat(op, ": ", name, " must be ", rule, ", got ", value));
}

void check_image(const char* op, std::int64_t H, std::int64_t W) {
  check_range(op, "height H", H, 1);
  check_range(op, "width W", W, 1);
}

void check_nhwc(const char* op, const char* name, const Shape& shape) {
  if (shape.ndim() == 4) return;
  throw std::invalid_argument(cat(op, ": ", name, " must have 4 dimensions (N,H,W,C), got ", to_string(shape)));
}

struct Axis {
  std::int64_t pad_before, pad_after, size;
};

Axis axis(const char* op, const char* names, std::int64_t in, std::int64_t kernel, std::int64_t stride,
          std::int64_t dilation, const std::optional<Pair>& pads) {
  const std::int64_t extent = dilation * (kernel - 1) + 1;
  Axis a{};
  if (pads) {
    a.pad_before = (*pads)[0];
    a.pad_after = (*pads)[1];
  } else {
    const std::int64_t size = (in + stride - 1) / stride;
    const std::int64_t pad = std::max<std::int64_t>(0, (size - 1) * stride + extent - in);
    a.pad_before = pad / 2;
    a.pad_after = pad - pad / 2;
  }
  const std::int64_t room = in + a.pad_before + a.pad_after - extent;
  if (room < 0) {
    throw std::invalid_argument(cat(op, ": the output's ", names, " would be below 1: a window of ", extent,
                                    " (kernel ", kernel, ", dilation ", dilation, ") does not fit into ", in,
                                    " with padding ", a.pad_before, " and ", a.pad_after));
  }
  a.size = room / stride + 1;
  return a;
}

}  // namespace

Window2d window2d(const char* op, std::int64_t H, std::int64_t W, Pair kernel, Pair stride, const Padding& padding,
                  Pair dilation) {
  check_image(op, H, W);
  for (const std::size_t i : {0u, 1u}) {
    check_range(op, "kernel", kernel[i], 1);
    check_range(op, "stride", stride[i], 1);
    check_range(op, "dilation", dilation[i], 1);
  }
  std::optional<Pair> pads_h, pads_w;
  if (padding) {
    for (const std::int64_t pad : *padding) check_range(op, "padding", pad, 0);
    pads_h = Pair{(*padding)[0], (*padding)[1]};
    pads_w = Pair{(*padding)[2], (*padding)[3]};
  }
  const Axis h = axis(op, "height", H, kernel[0], stride[0], dilation[0], pads_h);
  const Axis w = axis(op, "width", W, kernel[1], stride[1], dilation[1], pads_w);
  return {kernel[0],    kernel[1],   stride[0],    stride[1],   dilation[0], dilation[1],
          h.pad_before, h.pad_after, w.pad_before, w.pad_after, h.size,      w.size};
}

Pair conv_transpose2d_size(const char* op, std::int64_t P, std::int64_t Q, Pair kernel, Pair stride,
                           const Padding& padding, Pair output_padding) {
  const Pair in{P, Q};
  Pair size{};
  for (const std::size_t i : {0u, 1u}) {
    check_range(op, "input size", in[i], 1);
    check_range(op, "kernel", kernel[i], 1);
    check_range(op, "stride", stride[i], 1);
    check_range(op, "output_padding", output_padding[i], 0);
    if (output_padding[i] >= stride[i]) {
      throw std::invalid_argument(
          cat(op, ": output_padding (", output_padding[i], ") must be less than stride (", stride[i], ")"));
    }
    if (!padding) {
      size[i] = in[i] * stride[i];
      if (output_padding[i] > 0) {
        throw std::invalid_argument(
            cat(op, ": output_padding must be 0 with padding \"same\", got ", output_padding[i]));
      }
      continue;
    }
    check_range(op, "padding", (*padding)[2 * i], 0);
    check_range(op, "padding", (*padding)[2 * i + 1], 0);
    size[i] = (in[i] - 1) * stride[i] + kernel[i] - (*padding)[2 * i] - (*padding)[2 * i + 1] + output_padding[i];
    if (size[i] < 1) {
      throw std::invalid_argument(
          cat(op, ": the output's ", i == 0 ? "height" : "width", " would be ", size[i], ", below 1"));
    }
  }
  return size;
}

Shape pool2d_shape(const char* op, const Shape& x, Pair kernel, Pair stride, const Padding& padding) {
  check_nhwc(op, "x", x);
  const Window2d w = window2d(op, x[1], x[2], kernel, stride, padding);
  return {x[0], w.P, w.Q, x[3]};
}

Shape global_pool2d_shape(const char* op, const Shape& x) {
  check_nhwc(op, "x", x);
  check_image(op, x[1], x[2]);
  return {x[0], x[3]};
}

DType argmax_dtype(Pair kernel) {
  constexpr std::int64_t kPlaces = 255;
  return kernel[0] <= kPlaces && kernel[1] <= kPlaces && kernel[0] * kernel[1] <= kPlaces ? DType::kUInt8
                                                                                          : DType::kInt32;
}

Shape upsample2d_shape(const char* op, const Shape& x, Pair scale) {
  check_nhwc(op, "x", x);
  check_image(op, x[1], x[2]);
  for (const std::int64_t s : scale) check_range(op, "scale", s, 1);
  return {x[0], x[1] * scale[0], x[2] * scale[1], x[3]};
}

Shape downsample2d_shape(const char* op, const Shape& dy, Pair scale) {
  check_nhwc(op, "dy", dy);
  check_image(op, dy[1], dy[2]);
  for (const std::int64_t s : scale) check_range(op, "scale", s, 1);
  if (dy[1] % scale[0] != 0 || dy[2] % scale[1] != 0) {
    throw std::invalid_argument(
        cat(op, ": H and W of dy must be multiples of scale (", scale[0], ",", scale[1], "), got ", to_string(dy)));
  }
  return {dy[0], dy[1] / scale[0], dy[2] / scale[1], dy[3]};
}

}  // namespace stapes
