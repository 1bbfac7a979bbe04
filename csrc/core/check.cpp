#include "core/check.hpp"

namespace stapes {
namespace {

bool overlaps(const Tensor& a, const Tensor& b) {
  if (a.nbytes() == 0 || b.nbytes() == 0) return false;
  const auto a0 = reinterpret_cast<std::uintptr_t>(a.data), b0 = reinterpret_cast<std::uintptr_t>(b.data);
  return a0 < b0 + b.nbytes() && b0 < a0 + a.nbytes();
}

bool same_array(const Tensor& a, const Tensor& b) {
  return a.data == b.data && a.shape == b.shape && a.dtype == b.dtype;
}

}  // namespace

Check::Check(const char* op, std::initializer_list<Arg> args) : Check(op, std::vector<Arg>(args)) {}

Check::Check(const char* op, std::vector<Arg> args) : op_(op), args_(std::move(args)) {
  std::erase_if(args_, [](const Arg& a) { return a.tensor == nullptr; });
  check_devices();
  check_outputs();
  for (const Arg& a : args_) lent_.add(*a.tensor, a.role != Role::kIn);
}

void Check::check_devices() const {
  for (const Arg& a : args_) {
    if (!(a.tensor->device == args_.front().tensor->device)) {
      fail_type("all arrays must be on one device");
    }
  }
}

void Check::check_outputs() const {
  for (const Arg& o : args_) {
    if (o.role == Role::kIn) continue;
    if (!o.tensor->writable) fail_value(cat(o.name, " must be writable, got a read-only array"));
    for (const Arg& a : args_) {
      if (a.tensor == o.tensor || !overlaps(*a.tensor, *o.tensor)) continue;
      if (o.role == Role::kInPlaceOut && &a == &args_.front() && same_array(*a.tensor, *o.tensor)) continue;
      fail_value(cat(o.name, " must not overlap ", a.name));
    }
  }
}

void Check::ndim(const char* name, const Tensor& t, int ndim, const char* layout) const {
  require(t.shape.ndim() == ndim, name, " must have ", ndim, " dimensions ", layout, ", got ", t.shape.ndim());
}

void Check::shape(const char* name, const Tensor& t, const Shape& expected) const {
  require(t.shape == expected, name, " must have shape ", to_string(expected), ", got ", to_string(t.shape));
}

void Check::dtype(const char* name, const Tensor& t, DType expected) const {
  if (t.dtype != expected) {
    fail_type(cat(name, " must be ", name_of(expected), ", got ", name_of(t.dtype)));
  }
}

void Check::computes(const char* name, const Tensor& t) const {
  const bool half = t.dtype == DType::kFloat16 || t.dtype == DType::kBFloat16;
  const bool ok = t.dtype == DType::kFloat32 || (t.device.is_cpu() ? t.dtype == DType::kFloat64 : half);
  if (!ok) {
    fail_type(cat(name, " must be ", t.device.is_cpu() ? "float32 or float64" : "float32, float16 or bfloat16", " on ",
                  to_string(t.device), ", got ", name_of(t.dtype)));
  }
}

void Check::precision(const Tensor& t, Precision precision) const {
  const bool chosen = !t.device.is_cpu() && t.dtype == DType::kFloat32;
  require(precision == Precision::kFp32 || chosen, "precision other than \"fp32\" is for float32 arrays on CUDA");
}

void Check::matches(const char* name, const Tensor& t, const Tensor& like, const Shape& expected) const {
  dtype(name, t, like.dtype);
  shape(name, t, expected);
}

void Check::wide(const char* name, const Tensor& t, const Tensor& like, const Shape& expected) const {
  dtype(name, t, wide_of(like.dtype));
  shape(name, t, expected);
}

Number<double> Check::number(const char* name, const Scalar<double>& scalar, const Tensor& like) {
  const Number<double> n = resolve(op_, name, scalar, like.device);
  if (n.data != nullptr) lent_.add(*scalar.array, false);
  return n;
}

Number<std::uint64_t> Check::offset(const Scalar<std::uint64_t>& offset, const Tensor& like) {
  const Number<std::uint64_t> n = resolve(op_, "offset", offset, like.device);
  if (n.data != nullptr) lent_.add(*offset.array, false);
  return n;
}

void Check::labels(const char* name, const Tensor& t) const {
  if (t.dtype != DType::kInt32 && t.dtype != DType::kInt64) {
    fail_type(cat(name, " must be int32 or int64, got ", name_of(t.dtype)));
  }
}

std::string Check::message(const std::string& rule) const {
  std::string text = cat(op_, ": ", rule, ';');
  for (const Arg& a : args_) {
    text += cat(&a == &args_.front() ? " " : ", ", a.name, '=', to_string(a.tensor->shape), ' ',
                name_of(a.tensor->dtype), ' ', to_string(a.tensor->device));
  }
  return text;
}

void Check::fail_value(const std::string& rule) const { throw std::invalid_argument(message(rule)); }
void Check::fail_type(const std::string& rule) const { throw TypeError(message(rule)); }

}  // namespace stapes
