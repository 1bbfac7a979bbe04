#include "array_view.hpp"

#include <optional>

#include "program.hpp"

namespace py = pybind11;

namespace stapes {
namespace {

// bfloat16 comes from the ml_dtypes package and has the type code 'V' or 'E'; its name tells.
DType dtype_of(const py::dtype& dtype) {
  const char kind = dtype.kind();
  const auto size = dtype.itemsize();
  if (dtype.attr("isnative").cast<bool>()) {
    if (kind == 'f' && size == 4) return DType::kFloat32;
    if (kind == 'f' && size == 8) return DType::kFloat64;
    if (kind == 'f' && size == 2) return DType::kFloat16;
    if (kind == 'i' && size == 4) return DType::kInt32;
    if (kind == 'i' && size == 8) return DType::kInt64;
    if (kind == 'u' && size == 1) return DType::kUInt8;
    if (py::str(dtype.attr("name")).cast<std::string>() == "bfloat16") return DType::kBFloat16;
  }
  throw TypeError(cat("stapes: no operator takes arrays of dtype ", py::str(dtype).cast<std::string>()));
}

Tensor view_of_numpy(const py::array& array) {
  Tensor t;
  t.dtype = dtype_of(array.dtype());
  t.shape = Shape(array.shape(), array.shape() + array.ndim());
  t.data = const_cast<void*>(array.data());
  t.writable = array.writeable();
#ifdef STAPES_SIMT
  t.device.kind = Device::Kind::kCuda;  // the emulator's device has the host's memory
#endif
  if ((array.flags() & py::array::c_style) == 0) {
    throw std::invalid_argument(cat("stapes: array of shape ", to_string(t.shape),
                                    " must be C-contiguous; pass numpy.ascontiguousarray(array)"));
  }
  if (reinterpret_cast<std::uintptr_t>(t.data) % size_of(t.dtype) != 0) {
    throw std::invalid_argument(
        cat("stapes: array of shape ", to_string(t.shape), " is not aligned to its element; pass array.copy()"));
  }
  return t;
}

bool is_c_contiguous(const Shape& shape, const py::object& strides, std::size_t itemsize) {
  if (strides.is_none() || shape.numel() == 0) return true;
  auto expected = static_cast<std::int64_t>(itemsize);
  const auto given = strides.cast<std::vector<std::int64_t>>();
  for (int i = shape.ndim() - 1; i >= 0; --i) {
    if (shape[i] != 1 && given[static_cast<std::size_t>(i)] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

// CuPy puts its current stream into the interface: 1 is the legacy default stream, 2 the thread's, else a handle. Where
// it is told not to (CUPY_CUDA_ARRAY_INTERFACE_SYNC=0) it is asked.
std::uintptr_t stream_of(const py::dict& interface) {
  if (interface.contains("stream") && !interface["stream"].is_none()) return interface["stream"].cast<std::uintptr_t>();
  return py::module_::import("cupy").attr("cuda").attr("get_current_stream")().attr("ptr").cast<std::uintptr_t>();
}

// https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html, version 3
Tensor view_of_cuda(py::handle array) {
  const auto interface = array.attr("__cuda_array_interface__").cast<py::dict>();
  const auto data = interface["data"].cast<std::pair<std::uintptr_t, bool>>();
  Tensor t;
  t.data = reinterpret_cast<void*>(data.first);  // NOLINT(performance-no-int-to-ptr): given as a number
  t.writable = !data.second;
  t.dtype = dtype_of(py::dtype::from_args(py::hasattr(array, "dtype") ? py::object(array.attr("dtype"))
                                                                      : py::object(interface["typestr"])));
  for (const py::handle size : interface["shape"]) t.shape.push_back(size.cast<std::int64_t>());
  t.device.kind = Device::Kind::kCuda;
  if (py::hasattr(array, "device") && py::hasattr(array.attr("device"), "id")) {
    t.device.index = array.attr("device").attr("id").cast<int>();
  }
  t.stream = stream_of(interface);
  const py::object strides = interface.contains("strides") ? py::object(interface["strides"]) : py::none();
  if (!is_c_contiguous(t.shape, strides, size_of(t.dtype))) {
    throw std::invalid_argument(cat("stapes: array of shape ", to_string(t.shape),
                                    " must be C-contiguous; pass cupy.ascontiguousarray(array)"));
  }
  return t;
}

}  // namespace

Tensor view_of(py::handle array) {
  if (Program* program = Program::recording()) program->keep(array);
  if (py::isinstance<py::array>(array)) return view_of_numpy(py::reinterpret_borrow<py::array>(array));
  if (py::hasattr(array, "__cuda_array_interface__")) return view_of_cuda(array);
  throw TypeError(
      cat("stapes: expected a NumPy or CuPy array, got ", py::str(py::type::of(array)).cast<std::string>()));
}

}  // namespace stapes
