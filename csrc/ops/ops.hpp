// Every operator as the bindings call it: validates, then runs the kernel of the device. Optional tensors may be
// absent.
#pragma once

#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "core/shapes.hpp"
#include "core/tensor.hpp"
#include "ops/kernels.hpp"

namespace stapes::ops {
std::int64_t fma_peak(std::int64_t steps, bool float64);  // the floating-point operations done

// `b` and `dx` may be absent where they are optional.
using OptionalTensor = std::optional<Tensor>;

Shape conv2d_fwd_shape(const char* op, const Shape& x, const Shape& w, Pair stride, const Padding& padding,
                       Pair dilation, std::int64_t groups);
void conv2d_fwd(const Tensor& x, const Tensor& w, const OptionalTensor& b, const Tensor& y, Pair stride,
                const Padding& padding, Pair dilation, std::int64_t groups, bool relu, Precision precision);
void conv2d_dgrad(const Tensor& dy, const Tensor& w, const Tensor& dx, Pair stride, const Padding& padding,
                  Pair dilation, std::int64_t groups, Precision precision);
void conv2d_wgrad(const Tensor& dy, const Tensor& x, const Tensor& dw, Pair stride, const Padding& padding,
                  Pair dilation, std::int64_t groups, Precision precision);
void conv2d_bgrad(const Tensor& dy, const Tensor& db);

Shape conv2d_relu_max_pool2d_shape(const Shape& x, const Shape& w, Pair pool, Pair stride, const Padding& padding);
void conv2d_relu_max_pool2d_fwd(const Tensor& x, const Tensor& w, const OptionalTensor& b, const Tensor& y,
                                const Tensor& argmax, Pair pool, Pair stride, const Padding& padding,
                                Precision precision);
void conv2d_relu_max_pool2d_bwd(const Tensor& dy, const Tensor& argmax, const Tensor& x, const Tensor& w,
                                const OptionalTensor& dx, const Tensor& dw, const Tensor& db, Pair pool, Pair stride,
                                const Padding& padding, Precision precision);

Shape conv_transpose2d_fwd_shape(const Shape& x, const Shape& w, Pair stride, const Padding& padding,
                                 Pair output_padding);
void conv_transpose2d_fwd(const Tensor& x, const Tensor& w, const OptionalTensor& b, const Tensor& y, Pair stride,
                          const Padding& padding, Pair output_padding, Precision precision);
void conv_transpose2d_dgrad(const Tensor& dy, const Tensor& w, const Tensor& dx, Pair stride, const Padding& padding,
                            Pair output_padding, Precision precision);
void conv_transpose2d_wgrad(const Tensor& dy, const Tensor& x, const Tensor& dw, Pair stride, const Padding& padding,
                            Pair output_padding, Precision precision);

void linear_fwd(const Tensor& x, const Tensor& w, const OptionalTensor& b, const Tensor& y, bool relu,
                Precision precision);
void linear_dgrad(const Tensor& dy, const Tensor& w, const Tensor& dx, Precision precision);
void linear_wgrad(const Tensor& dy, const Tensor& x, const Tensor& dw, Precision precision);
void linear_bgrad(const Tensor& dy, const Tensor& db);

void relu_fwd(const Tensor& x, const Tensor& y);
void relu_bwd(const Tensor& dy, const Tensor& y, const Tensor& dx);
void batch_norm2d_fwd(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& running_mean,
                      const Tensor& running_var, bool training, double momentum, double eps, const Tensor& y,
                      const Tensor& mean, const Tensor& rstd);
void batch_norm2d_bwd(const Tensor& dy, const Tensor& x, const Tensor& gamma, const Tensor& mean, const Tensor& rstd,
                      bool training, const Tensor& dx, const Tensor& dgamma, const Tensor& dbeta);
Shape batch_norm2d_relu_max_pool2d_shape(const Shape& x, Pair pool);
void batch_norm2d_relu_max_pool2d_fwd(const Tensor& x, const Tensor& gamma, const Tensor& beta,
                                      const Tensor& running_mean, const Tensor& running_var, Pair pool, bool training,
                                      double momentum, double eps, const Tensor& y, const Tensor& argmax,
                                      const Tensor& mean, const Tensor& rstd);
void batch_norm2d_relu_max_pool2d_bwd(const Tensor& dy, const Tensor& argmax, const Tensor& x, const Tensor& gamma,
                                      const Tensor& mean, const Tensor& rstd, Pair pool, bool training,
                                      const Tensor& dx, const Tensor& dgamma, const Tensor& dbeta);
void batch_norm2d_relu_global_avg_pool2d_fwd(const Tensor& x, const Tensor& gamma, const Tensor& beta,
                                             const Tensor& running_mean, const Tensor& running_var, bool training,
                                             double momentum, double eps, const Tensor& y, const Tensor& norm,
                                             const Tensor& alive);
void batch_norm2d_relu_global_avg_pool2d_bwd(const Tensor& dy, const Tensor& x, const Tensor& gamma, const Tensor& norm,
                                             const Tensor& alive, bool training, const Tensor& dx, const Tensor& dgamma,
                                             const Tensor& dbeta);
void batch_norm2d_relu_conv2d_fwd(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& running_mean,
                                  const Tensor& running_var, const Tensor& w, const OptionalTensor& b, bool training,
                                  double momentum, double eps, const Tensor& y, const Tensor& norm, Pair stride,
                                  const Padding& padding, Pair dilation, std::int64_t groups, Precision precision);
void batch_norm2d_relu_conv2d_bwd(const Tensor& dy, const Tensor& x, const Tensor& gamma, const Tensor& norm,
                                  const Tensor& w, bool training, const Tensor& dx, const Tensor& dgamma,
                                  const Tensor& dbeta, const Tensor& dw, const OptionalTensor& db, Pair stride,
                                  const Padding& padding, Pair dilation, std::int64_t groups, Precision precision);

// A convolution's stride, padding, dilation and groups.
using ConvWindow = std::tuple<Pair, Padding, Pair, std::int64_t>;
// The arguments of a block of a chain, in the order of batch_norm2d_relu_conv2d_fwd and _bwd: from gamma to norm, and
// from gamma to db without dx.
using NormConvFwd = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, OptionalTensor, bool, double, double, Tensor,
                               Tensor, ConvWindow>;
using NormConvBwd = std::tuple<Tensor, Tensor, Tensor, bool, Tensor, Tensor, Tensor, OptionalTensor, ConvWindow>;

void batch_norm2d_relu_conv2d_chain_fwd(const Tensor& x, const std::vector<NormConvFwd>& blocks, Precision precision);
void batch_norm2d_relu_conv2d_chain_bwd(const Tensor& dy, const std::vector<Tensor>& x,
                                        const std::vector<NormConvBwd>& blocks, const Tensor& dx, Precision precision);

Shape conv2d_batch_norm2d_relu_max_pool2d_shape(const Shape& x, const Shape& w, Pair pool, Pair stride,
                                                const Padding& padding);
void conv2d_batch_norm2d_relu_max_pool2d_fwd(const Tensor& x, const Tensor& w, const OptionalTensor& b,
                                             const Tensor& gamma, const Tensor& beta, const Tensor& running_mean,
                                             const Tensor& running_var, bool training, double momentum, double eps,
                                             const Tensor& y, const Tensor& argmax, const Tensor& mean,
                                             const Tensor& rstd, Pair pool, Pair stride, const Padding& padding,
                                             Precision precision);
void conv2d_batch_norm2d_relu_max_pool2d_bwd(const Tensor& dy, const Tensor& argmax, const Tensor& x, const Tensor& w,
                                             const OptionalTensor& b, const Tensor& gamma, const Tensor& mean,
                                             const Tensor& rstd, bool training, const Tensor& dw, const Tensor& dgamma,
                                             const Tensor& dbeta, const OptionalTensor& db, Pair pool, Pair stride,
                                             const Padding& padding, Precision precision);
void cross_entropy_fwd(const Tensor& logits, const Tensor& target, const std::optional<Tensor>& weight,
                       double label_smoothing, std::int64_t ignore_index, const Scalar<double>& grad_scale,
                       const Tensor& loss, const Tensor& dlogits);
void cross_entropy_bwd(const Tensor& saved, const Scalar<double>& scale, const Tensor& dlogits);
void mse_fwd(const Tensor& y, const Tensor& target, const Tensor& loss);
void mse_bwd(const Tensor& y, const Tensor& target, const Scalar<double>& scale, const Tensor& dy);
void sgd_step(const std::vector<Tensor>& params, const std::vector<Tensor>& grads, const std::vector<Tensor>& velocity,
              const std::vector<Tensor>& copies, const Scalar<double>& lr, double momentum, bool nesterov,
              double weight_decay, const Scalar<double>& grad_scale, const OptionalTensor& found_inf);
void adam_step(const std::vector<Tensor>& params, const std::vector<Tensor>& grads, const std::vector<Tensor>& m,
               const std::vector<Tensor>& v, const std::vector<Tensor>& copies, const Scalar<double>& step,
               const Scalar<double>& lr, double beta1, double beta2, double eps, double weight_decay, bool decoupled,
               const Scalar<double>& grad_scale, const OptionalTensor& found_inf);
void find_inf(const std::vector<Tensor>& grads, const Tensor& found_inf);
void update_scale(const Tensor& scale, const Tensor& good_steps, const Tensor& found_inf, const OptionalTensor& step,
                  double growth_factor, double backoff_factor, std::int64_t growth_interval);
void cast(const Tensor& x, const Tensor& y);
void max_pool2d_fwd(const Tensor& x, const Tensor& y, const Tensor& argmax, Pair kernel, Pair stride,
                    const Padding& padding);
void max_pool2d_bwd(const Tensor& dy, const Tensor& argmax, const Tensor& dx, const Shape& x_shape, Pair kernel,
                    Pair stride, const Padding& padding);
void avg_pool2d_fwd(const Tensor& x, const Tensor& y, Pair kernel, Pair stride, const Padding& padding,
                    bool count_include_pad);
void avg_pool2d_bwd(const Tensor& dy, const Tensor& dx, const Shape& x_shape, Pair kernel, Pair stride,
                    const Padding& padding, bool count_include_pad);
void global_avg_pool2d_fwd(const Tensor& x, const Tensor& y);
void global_avg_pool2d_bwd(const Tensor& dy, const Tensor& dx, const Shape& x_shape);
void upsample2d_fwd(const Tensor& x, const Tensor& y, Pair scale);
void upsample2d_bwd(const Tensor& dy, const Tensor& dx, Pair scale);
void softmax_fwd(const Tensor& x, const Tensor& y);
void softmax_bwd(const Tensor& dy, const Tensor& y, const Tensor& dx);
void dropout_fwd(const Tensor& x, const Tensor& y, double p, std::uint64_t seed, const Scalar<std::uint64_t>& offset);
void dropout_bwd(const Tensor& dy, const Tensor& dx, double p, std::uint64_t seed, const Scalar<std::uint64_t>& offset);
void log_mel(const Tensor& x, const Tensor& window, const Tensor& roots, const Tensor& bins, const Tensor& weights,
             const Tensor& y, std::int64_t hop_length, std::int64_t offset, const std::string& padding,
             bool remove_mean, double preemphasis, double floor, bool decibels);
}  // namespace stapes::ops
