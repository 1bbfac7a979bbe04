// Numbers that a kernel takes by value or reads from the device (core/scalar.hpp).
#pragma once

#include "core/scalar.hpp"
#include "cuda/runtime.cuh"

namespace stapes::cuda {

template <class T>
__device__ inline T value_of(const Number<T>& n) {
  if (n.data == nullptr) return n.value;
  switch (n.dtype) {
    case DType::kFloat64: return static_cast<T>(*static_cast<const double*>(n.data));
    case DType::kInt32: return static_cast<T>(*static_cast<const std::int32_t*>(n.data));
    case DType::kInt64: return static_cast<T>(*static_cast<const std::int64_t*>(n.data));  // the bits, where T is whole
    default: return static_cast<T>(*static_cast<const float*>(n.data));
  }
}

}  // namespace stapes::cuda
