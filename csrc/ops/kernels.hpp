// The kernels: the CPU's in their instruction set variants (cpu/isa.hpp), and CUDA's, which launch on a stream and do
// not wait. What they get is in args.hpp.
#pragma once

#include "cpu/isa.hpp"
#include "cuda/device.hpp"
#include "ops/args.hpp"

namespace stapes {

namespace cpu {
inline constinit Kernel<FmaPeakArgs> fma_peak;
inline constinit Kernel<Conv2dFwdArgs> conv2d_fwd;
inline constinit Kernel<Conv2dDgradArgs> conv2d_dgrad;
inline constinit Kernel<Conv2dWgradArgs> conv2d_wgrad;
inline constinit Kernel<Conv2dBgradArgs> conv2d_bgrad;
inline constinit Kernel<Conv2dReluMaxPool2dFwdArgs> conv2d_relu_max_pool2d_fwd;
inline constinit Kernel<Conv2dReluMaxPool2dBwdArgs> conv2d_relu_max_pool2d_bwd;
inline constinit Kernel<ReluFwdArgs> relu_fwd;
inline constinit Kernel<ReluBwdArgs> relu_bwd;
inline constinit Kernel<BatchNorm2dFwdArgs> batch_norm2d_fwd;
inline constinit Kernel<BatchNorm2dBwdArgs> batch_norm2d_bwd;
inline constinit Kernel<BatchNorm2dReluMaxPool2dFwdArgs> batch_norm2d_relu_max_pool2d_fwd;
inline constinit Kernel<BatchNorm2dReluMaxPool2dBwdArgs> batch_norm2d_relu_max_pool2d_bwd;
inline constinit Kernel<BatchNorm2dReluGlobalAvgPool2dFwdArgs> batch_norm2d_relu_global_avg_pool2d_fwd;
inline constinit Kernel<BatchNorm2dReluGlobalAvgPool2dBwdArgs> batch_norm2d_relu_global_avg_pool2d_bwd;
inline constinit Kernel<BatchNorm2dReluConv2dFwdArgs> batch_norm2d_relu_conv2d_fwd;
inline constinit Kernel<BatchNorm2dReluConv2dBwdArgs> batch_norm2d_relu_conv2d_bwd;
inline constinit Kernel<NormConvChainFwdArgs> batch_norm2d_relu_conv2d_chain_fwd;
inline constinit Kernel<NormConvChainBwdArgs> batch_norm2d_relu_conv2d_chain_bwd;
inline constinit Kernel<Conv2dBatchNorm2dReluMaxPool2dFwdArgs> conv2d_batch_norm2d_relu_max_pool2d_fwd;
inline constinit Kernel<Conv2dBatchNorm2dReluMaxPool2dBwdArgs> conv2d_batch_norm2d_relu_max_pool2d_bwd;
inline constinit Kernel<CrossEntropyFwdArgs> cross_entropy_fwd;
inline constinit Kernel<CrossEntropyBwdArgs> cross_entropy_bwd;
inline constinit Kernel<MseFwdArgs> mse_fwd;
inline constinit Kernel<MseBwdArgs> mse_bwd;
inline constinit Kernel<SgdStepArgs> sgd_step;
inline constinit Kernel<AdamStepArgs> adam_step;
inline constinit Kernel<FindInfArgs> find_inf;
inline constinit Kernel<UpdateScaleArgs> update_scale;
inline constinit Kernel<CastArgs> cast;
inline constinit Kernel<MaxPool2dFwdArgs> max_pool2d_fwd;
inline constinit Kernel<MaxPool2dBwdArgs> max_pool2d_bwd;
inline constinit Kernel<AvgPool2dArgs> avg_pool2d_fwd, avg_pool2d_bwd;
inline constinit Kernel<GlobalAvgPool2dArgs> global_avg_pool2d_fwd, global_avg_pool2d_bwd;
inline constinit Kernel<Upsample2dArgs> upsample2d_fwd, upsample2d_bwd;
inline constinit Kernel<SoftmaxFwdArgs> softmax_fwd;
inline constinit Kernel<SoftmaxBwdArgs> softmax_bwd;
inline constinit Kernel<DropoutArgs> dropout;
inline constinit Kernel<LogMelArgs> log_mel;
}  // namespace cpu

namespace cuda {
void conv2d_fwd(const Conv2dFwdArgs& args, Stream stream);
void conv2d_dgrad(const Conv2dDgradArgs& args, Stream stream);
void conv2d_wgrad(const Conv2dWgradArgs& args, Stream stream);
void conv2d_bgrad(const Conv2dBgradArgs& args, Stream stream);
void conv2d_relu_max_pool2d_fwd(const Conv2dReluMaxPool2dFwdArgs& args, Stream stream);
void conv2d_relu_max_pool2d_bwd(const Conv2dReluMaxPool2dBwdArgs& args, Stream stream);
void relu_fwd(const ReluFwdArgs& args, Stream stream);
void relu_bwd(const ReluBwdArgs& args, Stream stream);
void batch_norm2d_fwd(const BatchNorm2dFwdArgs& args, Stream stream);
void batch_norm2d_bwd(const BatchNorm2dBwdArgs& args, Stream stream);
void batch_norm2d_relu_max_pool2d_fwd(const BatchNorm2dReluMaxPool2dFwdArgs& args, Stream stream);
void batch_norm2d_relu_max_pool2d_bwd(const BatchNorm2dReluMaxPool2dBwdArgs& args, Stream stream);
void batch_norm2d_relu_global_avg_pool2d_fwd(const BatchNorm2dReluGlobalAvgPool2dFwdArgs& args, Stream stream);
void batch_norm2d_relu_global_avg_pool2d_bwd(const BatchNorm2dReluGlobalAvgPool2dBwdArgs& args, Stream stream);
void batch_norm2d_relu_conv2d_fwd(const BatchNorm2dReluConv2dFwdArgs& args, Stream stream);
void batch_norm2d_relu_conv2d_bwd(const BatchNorm2dReluConv2dBwdArgs& args, Stream stream);
void batch_norm2d_relu_conv2d_chain_fwd(const NormConvChainFwdArgs& args, Stream stream);
void batch_norm2d_relu_conv2d_chain_bwd(const NormConvChainBwdArgs& args, Stream stream);
void conv2d_batch_norm2d_relu_max_pool2d_fwd(const Conv2dBatchNorm2dReluMaxPool2dFwdArgs& args, Stream stream);
void conv2d_batch_norm2d_relu_max_pool2d_bwd(const Conv2dBatchNorm2dReluMaxPool2dBwdArgs& args, Stream stream);
void cross_entropy_fwd(const CrossEntropyFwdArgs& args, Stream stream);
void cross_entropy_bwd(const CrossEntropyBwdArgs& args, Stream stream);
void mse_fwd(const MseFwdArgs& args, Stream stream);
void mse_bwd(const MseBwdArgs& args, Stream stream);
void sgd_step(const SgdStepArgs& args, Stream stream);
void adam_step(const AdamStepArgs& args, Stream stream);
void find_inf(const FindInfArgs& args, Stream stream);
void update_scale(const UpdateScaleArgs& args, Stream stream);
void cast(const CastArgs& args, Stream stream);
void max_pool2d_fwd(const MaxPool2dFwdArgs& args, Stream stream);
void max_pool2d_bwd(const MaxPool2dBwdArgs& args, Stream stream);
void avg_pool2d_fwd(const AvgPool2dArgs& args, Stream stream);
void avg_pool2d_bwd(const AvgPool2dArgs& args, Stream stream);
void global_avg_pool2d_fwd(const GlobalAvgPool2dArgs& args, Stream stream);
void global_avg_pool2d_bwd(const GlobalAvgPool2dArgs& args, Stream stream);
void upsample2d_fwd(const Upsample2dArgs& args, Stream stream);
void upsample2d_bwd(const Upsample2dArgs& args, Stream stream);
void softmax_fwd(const SoftmaxFwdArgs& args, Stream stream);
void softmax_bwd(const SoftmaxBwdArgs& args, Stream stream);
void dropout(const DropoutArgs& args, Stream stream);
void log_mel(const LogMelArgs& args, Stream stream);
}  // namespace cuda

}  // namespace stapes
