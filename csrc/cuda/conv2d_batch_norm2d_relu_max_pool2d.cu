// conv2d_batch_norm2d_relu_max_pool2d: u = conv2d(x, w) + b, then batch_norm2d_relu_max_pool2d of u
//   bwd: the gradients of w, gamma, beta and b; there is none of x
// Layout and conditions: those of the parts, conv2d and batch_norm2d_relu_max_pool2d.
// Work: by the kernels of the parts. u, and backward also its gradient, lie in scratch memory for the time of a call;
//   the backward computes u anew.
// Numerics: those of the parts; u is rounded to the dtype. The same bits on every run. Overwrites.
// Source: the definition.
// Measured: not measured.
#include "cuda/runtime.cuh"
#include "ops/kernels.hpp"

namespace stapes::cuda {
namespace {

std::size_t bytes_of(std::int64_t rows, std::int64_t channels, DType dtype) {
  return static_cast<std::size_t>(rows * channels) * size_of(dtype);
}

}  // namespace

void conv2d_batch_norm2d_relu_max_pool2d_fwd(const Conv2dBatchNorm2dReluMaxPool2dFwdArgs& args, Stream stream) {
  Conv2dFwdArgs conv = args.conv;
  BatchNorm2dFwdArgs norm = args.norm;
  const Workspace u(bytes_of(norm.rows, norm.channels, norm.dtype), stream);
  norm.x = conv.y = u.data();
  conv2d_fwd(conv, stream);
  batch_norm2d_relu_max_pool2d_fwd({norm, args.argmax, args.map}, stream);
}

void conv2d_batch_norm2d_relu_max_pool2d_bwd(const Conv2dBatchNorm2dReluMaxPool2dBwdArgs& args, Stream stream) {
  Conv2dFwdArgs conv = args.conv;
  BatchNorm2dBwdArgs norm = args.norm;
  const std::size_t size = bytes_of(norm.rows, norm.channels, norm.dtype);
  const Workspace u(size, stream), du(size, stream);
  norm.x = conv.y = u.data();
  norm.dx = du.data();
  conv2d_fwd(conv, stream);
  batch_norm2d_relu_max_pool2d_bwd({norm, args.argmax, args.map, args.argmax_valid}, stream);
  conv2d_wgrad({norm.dx, conv.x, args.dw, conv.shape, conv.dtype, conv.precision}, stream);
  if (args.db != nullptr) conv2d_bgrad({norm.dx, args.db, norm.rows, norm.channels, norm.dtype}, stream);
}

}  // namespace stapes::cuda
