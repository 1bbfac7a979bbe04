// The one place that knows whether nvcc or the emulator (csrc/simt/) compiles a kernel: launches, dynamic shared
// memory, scratch memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <utility>

#include "cuda/device.hpp"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#else
#include "simt/simt.hpp"
#endif

// The block's dynamic shared memory, 16-byte aligned, as `T* name`. Its size is the launch's.
#ifdef __CUDACC__
#define STAPES_DYN_SHARED(T, name)                                       \
  extern __shared__ __align__(16) unsigned char stapes_dynamic_shared[]; \
  T* name = reinterpret_cast<T*>(stapes_dynamic_shared)
#else
#define STAPES_DYN_SHARED(T, name) T* name = static_cast<T*>(simt::dynamic_shared())
#endif

namespace stapes::cuda {

template <class T>
__host__ __device__ constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

// Scratch memory of the device, uninitialised, for the launches on `stream` up to the end of the scope.
class Workspace {
 public:
  Workspace(std::size_t bytes, Stream stream);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  void* data() const { return data_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_;
  Stream stream_;
  void (*free_)(void*) = nullptr;  // the allocator's that gave the memory
};

void zero(void* p, std::size_t bytes, Stream stream);  // fills device memory, as a part of the stream's work

#ifdef __CUDACC__
// Throws std::runtime_error, "cudaFoo: the error (file:line)", unless `code` is success.
void check(cudaError_t code, const char* call, std::source_location where = std::source_location::current());
#endif

namespace detail {
struct Dim {  // a dim3 that remembers where it was written
  dim3 size;
  std::source_location where;
  template <class D>
  Dim(D d, std::source_location w = std::source_location::current()) : size(d), where(w) {}  // NOLINT: implicit
};
}  // namespace detail

// kernel<<<grid, block, dynamic_shared, stream>>>(args...); nothing when the grid is empty.
template <class... P, class... A>
void launch(void (*kernel)(P...), detail::Dim grid, dim3 block, std::size_t dynamic_shared, Stream stream,
            A&&... args) {
  const dim3 size = grid.size;
  if (size.x == 0 || size.y == 0 || size.z == 0) return;
#ifdef __CUDACC__
  constexpr std::size_t kSharedWithoutAsking = 48 << 10;
  if (dynamic_shared > kSharedWithoutAsking) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(dynamic_shared)),
          "cudaFuncSetAttribute", grid.where);
  }
  kernel<<<size, block, dynamic_shared, stream>>>(std::forward<A>(args)...);
  check(cudaGetLastError(), "kernel launch", grid.where);
#else
  static_cast<void>(stream);  // work on one stream is in order, and the emulator has no other
  simt::launch(kernel, size, block, dynamic_shared, std::forward<A>(args)...);
#endif
}

}  // namespace stapes::cuda
