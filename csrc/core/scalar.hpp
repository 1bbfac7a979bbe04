// Numbers that may change from step to step: given by value, or as an array of one element on the device, which the
// kernel reads when it runs, so that a captured graph sees new values.
#pragma once

#include <cstdint>
#include <optional>

#include "core/tensor.hpp"

namespace stapes {

// As it comes from Python.
template <class T>
struct Scalar {
  T value{};
  std::optional<Tensor> array;
};

// As a kernel gets it: where `data` is null, the value.
template <class T>
struct Number {
  T value{};
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
};

// Reads the array where the host can, and otherwise leaves it to the kernel. It must lie on `device`, have one element,
// and be float32, float64, int32 or int64 (T = double), or int64 (T = std::uint64_t). Defined for these two.
template <class T>
Number<T> resolve(const char* op, const char* name, const Scalar<T>& scalar, const Device& device);

}  // namespace stapes
