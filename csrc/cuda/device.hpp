// CUDA as the rest of the extension sees it: no header of CUDA's is needed to include this.
#pragma once

#include <cstddef>
#include <string>

struct CUstream_st;

namespace stapes::cuda {

using Stream = CUstream_st*;  // cudaStream_t

// Whether this module has CUDA kernels: compiled by nvcc, or for the emulator (csrc/simt).
#if defined(STAPES_CUDA) || defined(STAPES_SIMT)
inline constexpr bool kBuiltIn = true;
#else
inline constexpr bool kBuiltIn = false;
#endif
inline constexpr const char* kNotBuiltIn =
    "this build of Stapes has no CUDA kernels: with an nvcc 13 on PATH, in Stapes's folder, "
    "pip install . -C cmake.define.STAPES_CUDA=ON";

// Why no device can be used; empty where one can.
std::string unavailable_reason();

int device_arch();  // compute capability of the current device: 75, 80, 90, ...
int sm_count();

// Where Workspace takes memory from: a pool that orders frees after the work on the stream, such as CuPy's.
// Until one is set: cudaMallocAsync and cudaFreeAsync.
struct Allocator {
  void* (*allocate)(std::size_t bytes, Stream stream);
  void (*free)(void* p);
};
void set_allocator(Allocator allocator);

// Makes a device the current one for as long as it lives.
class UseDevice {
 public:
  explicit UseDevice(int index);
  ~UseDevice();
  UseDevice(const UseDevice&) = delete;
  UseDevice& operator=(const UseDevice&) = delete;

 private:
  static constexpr int kUnchanged = -1;
  int before_ = kUnchanged;
};

}  // namespace stapes::cuda
