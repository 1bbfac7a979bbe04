// Validation of an operator's arguments. Every error names the operator, the rule and what was got.
#pragma once

#include <initializer_list>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/lent.hpp"
#include "core/scalar.hpp"
#include "core/tensor.hpp"

namespace stapes {

// Becomes Python's TypeError; std::invalid_argument becomes ValueError.
struct TypeError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <class... Parts>
std::string cat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

enum class Role : std::uint8_t {
  kIn,
  kOut,        // overwritten; may not overlap an input
  kInPlaceOut  // overwritten; may be exactly the first input, but overlap none otherwise
};

struct Arg {
  const char* name;
  const Tensor* tensor;
  Role role;
};

inline Arg in(const char* name, const Tensor& t) { return {name, &t, Role::kIn}; }
inline Arg in(const char* name, const std::optional<Tensor>& t) { return {name, t ? &*t : nullptr, Role::kIn}; }
inline Arg out(const char* name, const Tensor& t) { return {name, &t, Role::kOut}; }
inline Arg out(const char* name, const std::optional<Tensor>& t) { return {name, t ? &*t : nullptr, Role::kOut}; }
inline Arg in_place_out(const char* name, const Tensor& t) { return {name, &t, Role::kInPlaceOut}; }

// The constructor checks what holds for every operator: one device, writable outputs, no overlap.
class Check {
 public:
  Check(const char* op, std::initializer_list<Arg> args);
  Check(const char* op, std::vector<Arg> args);

  // ValueError unless `ok`. The rule's parts are only put together when it is broken.
  template <class... Parts>
  void require(bool ok, const Parts&... rule) const {
    if (!ok) fail_value(cat(rule...));
  }

  void ndim(const char* name, const Tensor& t, int ndim, const char* layout) const;
  void shape(const char* name, const Tensor& t, const Shape& expected) const;
  void dtype(const char* name, const Tensor& t, DType expected) const;
  // A dtype in which this device computes: float32 or float64 on the CPU; float32, float16 or bfloat16 on CUDA.
  void computes(const char* name, const Tensor& t) const;
  // What `precision` names is there for the dtype and device of `t`.
  void precision(const Tensor& t, Precision precision) const;
  // `t` is an output or partner of `like`: same dtype, given shape.
  void matches(const char* name, const Tensor& t, const Tensor& like, const Shape& expected) const;
  // As `matches`, for what stays in float32 beside 16-bit arrays: biases, statistics, gradients of weights.
  void wide(const char* name, const Tensor& t, const Tensor& like, const Shape& expected) const;
  // A number, by value or as an array of one element on the device of `like`.
  Number<double> number(const char* name, const Scalar<double>& scalar, const Tensor& like);
  // An offset, by value or as an array of one int64 on the device of `like`.
  Number<std::uint64_t> offset(const Scalar<std::uint64_t>& offset, const Tensor& like);
  void labels(const char* name, const Tensor& t) const;

  [[noreturn]] void fail_value(const std::string& rule) const;
  [[noreturn]] void fail_type(const std::string& rule) const;

 private:
  std::string message(const std::string& rule) const;
  void check_devices() const;
  void check_outputs() const;

  const char* op_;
  std::vector<Arg> args_;
  Lent lent_;
};

}  // namespace stapes
