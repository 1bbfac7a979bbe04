// The switch on the dtype of CUDA's kernels.
#pragma once

#include <stdexcept>
#include <string>

#include "core/tensor.hpp"
#include "cuda/runtime.cuh"

namespace stapes::cuda {

// Calls f(T{}) with the type of a floating dtype: float, __half or __nv_bfloat16.
template <class F>
void with_cuda_dtype(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kFloat32: return f(float{});
    case DType::kFloat16: return f(__half{});
    case DType::kBFloat16: return f(__nv_bfloat16{});
    default: throw std::logic_error("not a dtype of CUDA's");  // not reached: operators have looked at the dtype
  }
}

}  // namespace stapes::cuda
