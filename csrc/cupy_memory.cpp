#include "cupy_memory.hpp"

#include <pybind11/pybind11.h>

#include <unordered_map>

#include "cuda/device.hpp"

namespace py = pybind11;

namespace stapes {
namespace {

// Operators run without the GIL, which guards the map too. It is never destroyed: at exit the interpreter is gone.
std::unordered_map<void*, py::object>& lent() {
  static auto& map = *new std::unordered_map<void*, py::object>();
  return map;
}

// The pool hands memory to other work on the same stream only, so it may have it back before the kernels have run. The
// stream is CuPy's current one: the arrays came with it.
void* allocate(std::size_t bytes, cuda::Stream /*stream*/) {
  const py::gil_scoped_acquire gil;
  py::object memory = py::module_::import("cupy").attr("cuda").attr("alloc")(bytes);
  const auto address = memory.attr("ptr").cast<std::uintptr_t>();
  void* p = reinterpret_cast<void*>(address);  // NOLINT(performance-no-int-to-ptr): given as a number
  lent().emplace(p, std::move(memory));
  return p;
}

void give_back(void* p) {
  const py::gil_scoped_acquire gil;
  lent().erase(p);
}

}  // namespace

void use_cupy_memory() {
  if constexpr (cuda::kBuiltIn) cuda::set_allocator({allocate, give_back});
}

}  // namespace stapes
