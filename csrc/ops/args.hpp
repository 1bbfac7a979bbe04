// What every kernel gets.
// Layout NHWC, weights KRSC, C-contiguous. Formulas and layouts are told at the kernels.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/scalar.hpp"
#include "core/shapes.hpp"
#include "core/tensor.hpp"

namespace stapes {

// relu
struct ReluFwdArgs {
  const void* x;
  void* y;
  std::int64_t size;
  DType dtype;
};
struct ReluBwdArgs {
  const void *dy, *y;
  void* dx;
  std::int64_t size;
  DType dtype;
};

// batch_norm2d
struct BatchNorm2dFwdArgs {
  const void *x, *gamma, *beta;
  void *running_mean, *running_var;  // written in training only
  void *y, *mean, *rstd;
  std::int64_t rows, channels;  // rows = N * H * W
  bool training;
  double momentum, eps;
  DType dtype;
};
struct BatchNorm2dBwdArgs {
  const void *dy, *x, *gamma, *mean, *rstd;
  void *dx, *dgamma, *dbeta;
  std::int64_t rows, channels;
  bool training;
  DType dtype;
};

// batch_norm2d_relu_max_pool2d: x is (N, H, W, C); y, dy and argmax are (N, H / pool_h, W / pool_w, C)
struct PooledMap {
  std::int64_t N, H, W, C, pool_h, pool_w;
};
struct BatchNorm2dReluMaxPool2dFwdArgs {
  BatchNorm2dFwdArgs norm;
  std::uint8_t* argmax;
  PooledMap map;
};
struct BatchNorm2dReluMaxPool2dBwdArgs {
  BatchNorm2dBwdArgs norm;
  const std::uint8_t* argmax;
  PooledMap map;
  bool* argmax_valid;  // CPU only: set false, and nothing else done, where argmax holds no place of the window
};

// cross_entropy
struct CrossEntropyFwdArgs {
  const void *logits, *target, *weight;  // weight may be null
  void *loss, *dlogits;
  std::int64_t rows, classes;
  double label_smoothing;
  std::int64_t ignore_index;
  Number<double> grad_scale;
  DType dtype, target_dtype;  // an integer target_dtype: class ids, else probabilities
};
struct CrossEntropyBwdArgs {
  const void* saved;
  void* dlogits;
  std::int64_t size;
  Number<double> scale;
  DType dtype;
};

// mse
struct MseFwdArgs {
  const void *y, *target;
  void* loss;
  std::int64_t size;
  DType dtype;
};
struct MseBwdArgs {
  const void *y, *target;
  void* dy;
  std::int64_t size;
  Number<double> scale;
  DType dtype;
};

// sgd_step, adam_step
struct StepTensor {
  void* param;
  const void* grad;
  void *first, *second;  // velocity (may be null) and nothing; m and v
  void* copy;            // 16-bit copy of the parameter, or null; CUDA only
  std::int64_t size;
};
struct SgdStepArgs {
  const StepTensor* tensors;
  std::int64_t count;
  Number<double> lr, grad_scale;
  const std::int32_t* found_inf;  // null, or where it is not 0 nothing is done
  double momentum;
  bool nesterov;
  double weight_decay;
  DType dtype, grad_dtype, copy_dtype;  // of params and state, of grads, of copies
};
struct AdamStepArgs {
  const StepTensor* tensors;
  std::int64_t count;
  Number<double> step, lr, grad_scale;
  const std::int32_t* found_inf;
  double beta1, beta2, eps, weight_decay;
  bool decoupled;
  DType dtype, grad_dtype, copy_dtype;
};

// find_inf, update_scale: the loss scale of mixed precision
struct GradTensor {
  const void* grad;
  std::int64_t size;
};
struct FindInfArgs {
  const GradTensor* tensors;
  std::int64_t count;
  std::int32_t* found_inf;
  DType dtype;
};
struct UpdateScaleArgs {
  float* scale;
  std::int32_t* good_steps;
  const std::int32_t* found_inf;
  std::int64_t* step;  // may be null
  double growth_factor, backoff_factor;
  std::int64_t growth_interval;
};

// cast
struct CastArgs {
  const void* x;
  void* y;
  std::int64_t size;
  DType from, to;
};

// conv2d, and what is computed by it: linear, conv_transpose2d
struct Conv2dShape {
  std::int64_t N, H, W, C, K, groups;
  Window2d window;  // R = kernel_h, S = kernel_w; P, Q
};
struct Conv2dFwdArgs {
  const void *x, *w, *b;  // b may be null
  void* y;
  Conv2dShape shape;
  bool relu;
  DType dtype;
  Precision precision = Precision::kFp32;
};
struct Conv2dDgradArgs {
  const void *dy, *w, *b;  // b, over C, may be null: conv_transpose2d_fwd has one
  void* dx;
  Conv2dShape shape;
  DType dtype;
  Precision precision = Precision::kFp32;
};
struct Conv2dWgradArgs {
  const void *dy, *x;
  void* dw;
  Conv2dShape shape;
  DType dtype;
  Precision precision = Precision::kFp32;
};
struct Conv2dBgradArgs {
  const void* dy;
  void* db;
  std::int64_t rows, K;
  DType dtype;
};
struct Conv2dReluMaxPool2dFwdArgs {
  const void *x, *w, *b;  // b may be null
  void* y;
  std::uint8_t* argmax;
  Conv2dShape shape;
  std::int64_t pool_h, pool_w;
  DType dtype;
  Precision precision = Precision::kFp32;
};
struct Conv2dReluMaxPool2dBwdArgs {
  const void* dy;
  const std::uint8_t* argmax;
  const void *x, *w;
  void *dx, *dw, *db;  // dx may be null
  Conv2dShape shape;
  std::int64_t pool_h, pool_w;
  DType dtype;
  Precision precision = Precision::kFp32;
  bool* argmax_valid;  // CPU only: set false, and nothing else done, where argmax holds no place of the window
};

// batch_norm2d_relu_conv2d. kept: (4, C): mean, scale, shift, rstd; y = conv(max(0, (x - mean) * scale + shift))
struct BatchNorm2dReluConv2dFwdArgs {
  BatchNorm2dFwdArgs norm;  // mean and rstd are those in `kept`, y is null
  void* kept;
  Conv2dFwdArgs conv;  // x is null
};
struct BatchNorm2dReluConv2dBwdArgs {
  BatchNorm2dBwdArgs norm;  // mean and rstd are those in `kept`, dy is null
  const void* kept;
  Conv2dDgradArgs conv;  // dx is the gradient of x, not that of the convolution's input
  void *dw, *db;         // db may be null
};

// batch_norm2d_relu_conv2d_chain: each block's x is the y of the one before.
struct NormConvChainFwdArgs {
  std::vector<BatchNorm2dReluConv2dFwdArgs> blocks;
};
struct NormConvChainBwdArgs {
  std::vector<BatchNorm2dReluConv2dBwdArgs> blocks;  // dy is null but in the last, dx but in the first
};

// batch_norm2d_relu_global_avg_pool2d: x is (N, pixels, C); y and dy are (N, C), kept (4, C), alive (2, N, C)
struct BatchNorm2dReluGlobalAvgPool2dFwdArgs {
  BatchNorm2dFwdArgs norm;  // mean and rstd are those in `kept`
  void *kept, *alive;
  std::int64_t N, pixels;
};
struct BatchNorm2dReluGlobalAvgPool2dBwdArgs {
  BatchNorm2dBwdArgs norm;  // mean and rstd are those in `kept`
  const void *kept, *alive;
  std::int64_t N, pixels;
};

// conv2d_batch_norm2d_relu_max_pool2d
struct Conv2dBatchNorm2dReluMaxPool2dFwdArgs {
  Conv2dFwdArgs conv;       // y is null
  BatchNorm2dFwdArgs norm;  // of the convolution's output: x is null; y is that of the pooling
  std::uint8_t* argmax;
  PooledMap map;  // H, W are P, Q
};
struct Conv2dBatchNorm2dReluMaxPool2dBwdArgs {
  Conv2dFwdArgs conv;       // as in the forward
  BatchNorm2dBwdArgs norm;  // x and dx are null; dy is that of the pooling
  const std::uint8_t* argmax;
  PooledMap map;
  void *dw, *db;       // db may be null
  bool* argmax_valid;  // CPU only: set false, and nothing else done, where argmax holds no place of the window
};

// max_pool2d: H, W are those of x and dx; argmax is in the layout of y
struct MaxPool2dFwdArgs {
  const void* x;
  void *y, *argmax;
  std::int64_t N, H, W, C;
  Window2d window;
  DType dtype, argmax_dtype;
};
struct MaxPool2dBwdArgs {
  const void *dy, *argmax;
  void* dx;
  std::int64_t N, H, W, C;
  Window2d window;
  DType dtype, argmax_dtype;
  bool* argmax_valid;  // CPU only: set false, and dx left alone, where argmax holds a place outside of the image
};

// avg_pool2d: x to y, or dy to dx; H, W are those of x and dx
struct AvgPool2dArgs {
  const void* in;
  void* out;
  std::int64_t N, H, W, C;
  Window2d window;
  bool count_include_pad;
  DType dtype;
};
struct GlobalAvgPool2dArgs {
  const void* in;
  void* out;
  std::int64_t N, pixels, C;
  DType dtype;
};

// upsample2d: x to y, or dy to dx; H, W are those of x and dx
struct Upsample2dArgs {
  const void* in;
  void* out;
  std::int64_t N, H, W, C, scale_h, scale_w;
  DType dtype;
};

// softmax
struct SoftmaxFwdArgs {
  const void* x;
  void* y;
  std::int64_t rows, columns;
  DType dtype;
};
struct SoftmaxBwdArgs {
  const void *dy, *y;
  void* dx;
  std::int64_t rows, columns;
  DType dtype;
};

// dropout: x to y, or dy to dx
struct DropoutArgs {
  const void* x;
  void* y;
  std::int64_t size;
  double p;
  std::uint64_t seed;
  Number<std::uint64_t> offset;
  DType dtype;
};

// log_mel: x (N, samples) to y (N, frames, bands)
enum class FramePadding : std::uint8_t { kNone, kConstant, kReflect };  // beyond the ends: nothing is read; zeros; ...
struct LogMelArgs {
  const void *x, *window, *roots, *bins, *weights;  // see cpu/log_mel.cpp
  void* y;
  std::int64_t N, samples, frames, bands, width;
  std::int64_t n_fft, win_length, hop_length, offset;  // frame t begins at sample t * hop_length + offset
  FramePadding padding;
  bool remove_mean, decibels;
  double preemphasis, floor;
  DType dtype;  // of x
};

// the multiply-add rate of one core, for benchmarks
struct FmaPeakArgs {
  std::int64_t steps;
  DType dtype;
  double* checksum;
  std::int64_t* flops;
};

}  // namespace stapes
