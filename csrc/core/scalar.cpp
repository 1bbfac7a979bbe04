#include "core/scalar.hpp"

#include <type_traits>

#include "core/check.hpp"

namespace stapes {
namespace {

template <class T>
T read(const Tensor& t) {
  switch (t.dtype) {
    case DType::kFloat64: return static_cast<T>(*static_cast<const double*>(t.data));
    case DType::kInt32: return static_cast<T>(*static_cast<const std::int32_t*>(t.data));
    case DType::kInt64: return static_cast<T>(*static_cast<const std::int64_t*>(t.data));  // the bits, where T is whole
    default: return static_cast<T>(*static_cast<const float*>(t.data));
  }
}

bool is_real(DType d) { return d == DType::kFloat32 || d == DType::kFloat64 || d == DType::kInt32; }

}  // namespace

template <class T>
Number<T> resolve(const char* op, const char* name, const Scalar<T>& scalar, const Device& device) {
  if (!scalar.array) return {scalar.value, nullptr, DType::kFloat32};
  const Tensor& t = *scalar.array;
  constexpr bool kWhole = std::is_integral_v<T>;
  if (t.dtype != DType::kInt64 && (kWhole || !is_real(t.dtype))) {
    throw TypeError(cat(op, ": ", name, " must be an array of ", kWhole ? "" : "float32, float64, int32 or ",
                        "int64, got ", name_of(t.dtype)));
  }
  if (t.numel() != 1) {
    throw std::invalid_argument(cat(op, ": ", name, " must have one element, got shape ", to_string(t.shape)));
  }
  if (!(t.device == device)) {
    throw TypeError(cat(op, ": ", name, " must be on ", to_string(device), ", got ", to_string(t.device)));
  }
  if (device.is_cpu()) return {read<T>(t), nullptr, DType::kFloat32};
  return {T{}, t.data, t.dtype};
}

template Number<double> resolve(const char*, const char*, const Scalar<double>&, const Device&);
template Number<std::uint64_t> resolve(const char*, const char*, const Scalar<std::uint64_t>&, const Device&);

}  // namespace stapes
