// The switch on the device (run) and the switch on the dtype (with_dtype).
#pragma once

#include <stdexcept>
#include <string>

#include "core/tensor.hpp"
#include "cuda/device.hpp"

namespace stapes {

// Runs CUDA's kernel on the device of `where`, on the stream that the array came with.
template <auto kCudaKernel, class Args>
void run_cuda(const char* op, const Tensor& where, const Args& args) {
  if constexpr (cuda::kBuiltIn) {
    const cuda::UseDevice use(where.device.index);
    if (where.dtype == DType::kBFloat16 && cuda::device_arch() < 80) {
      throw std::runtime_error(std::string(op) + ": bfloat16 needs compute capability 8.0, the device has less");
    }
    kCudaKernel(args, reinterpret_cast<cuda::Stream>(where.stream));  // NOLINT(performance-no-int-to-ptr)
  } else {
    throw std::runtime_error(std::string(op) + ": got an array on " + to_string(where.device) + ", but " +
                             cuda::kNotBuiltIn);
  }
}

// Runs the kernel that belongs to the device of `where`.
template <auto& kCpuKernel, auto kCudaKernel, class Args>
void run(const char* op, const Tensor& where, const Args& args) {
  if (where.device.is_cpu()) {
    kCpuKernel(args);
  } else {
    run_cuda<kCudaKernel>(op, where, args);
  }
}

// Calls f(T{}) with the C++ type of a floating dtype that the CPU computes in.
template <class F>
void with_dtype(DType dtype, F&& f) {
  if (dtype == DType::kFloat64) {
    f(double{});
  } else {
    f(float{});
  }
}

}  // namespace stapes
