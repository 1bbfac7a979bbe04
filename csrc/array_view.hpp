// NumPy arrays, and anything with __cuda_array_interface__, seen as stapes::Tensor: a pybind11 caster, so
// that an operator is bound by naming its C++ function.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "core/check.hpp"
#include "core/scalar.hpp"
#include "core/tensor.hpp"

namespace stapes {

Tensor view_of(pybind11::handle array);  // TypeError or ValueError where it cannot be viewed as it is

}  // namespace stapes

namespace pybind11::detail {

template <>
struct type_caster<stapes::Tensor> {
  PYBIND11_TYPE_CASTER(stapes::Tensor, const_name("numpy.ndarray"));
  bool load(handle src, bool) {
    if (src.is_none()) return false;
    value = stapes::view_of(src);
    return true;
  }
};

template <>
struct type_caster<stapes::Precision> {
  PYBIND11_TYPE_CASTER(stapes::Precision, const_name("str"));
  bool load(handle src, bool) {
    const auto text = isinstance<str>(src) ? src.cast<std::string>() : std::string();
    if (text == "fp32")
      value = stapes::Precision::kFp32;
    else if (text == "fp32_split")
      value = stapes::Precision::kFp32Split;
    else if (text == "tf32")
      value = stapes::Precision::kTf32;
    else
      return false;
    return true;
  }
};

template <class T>
struct type_caster<stapes::Scalar<T>> {
  PYBIND11_TYPE_CASTER(stapes::Scalar<T>, make_caster<T>::name + const_name(" | numpy.ndarray"));
  bool load(handle src, bool convert) {
    make_caster<T> number;
    if (PyFloat_Check(src.ptr()) || PyLong_Check(src.ptr())) {
      if (!number.load(src, convert)) return false;
      value.value = cast_op<T>(number);
    } else {
      value.array = stapes::view_of(src);
    }
    return true;
  }
};

template <>
struct type_caster<stapes::Shape> {
  PYBIND11_TYPE_CASTER(stapes::Shape, const_name("tuple[int, ...]"));
  bool load(handle src, bool) {
    if (!isinstance<sequence>(src)) return false;
    value = stapes::Shape();
    for (const handle item : reinterpret_borrow<sequence>(src)) {
      make_caster<std::int64_t> size;
      if (!size.load(item, false)) return false;
      value.push_back(cast_op<std::int64_t>(size));
    }
    return true;
  }
  static handle cast(const stapes::Shape& shape, return_value_policy, handle) {
    tuple result(static_cast<std::size_t>(shape.ndim()));
    for (int i = 0; i < shape.ndim(); ++i) result[static_cast<std::size_t>(i)] = shape[i];
    return result.release();
  }
};

}  // namespace pybind11::detail
