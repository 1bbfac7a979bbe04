// The host's side of runtime.cuh and device.hpp, on CUDA and on the emulator.
#include <stdexcept>
#include <string>

#include "cuda/runtime.cuh"

namespace stapes::cuda {

#ifdef __CUDACC__

void check(cudaError_t code, const char* call, std::source_location where) {
  if (code == cudaSuccess) return;
  cudaGetLastError();  // forgotten, so that the next call does not report it again
  const char* hint = code == cudaErrorNoKernelImageForDevice
                         ? "; Stapes was built for other GPUs: see STAPES_CUDA_ARCHITECTURES in its README"
                         : "";
  throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(code) + hint + " (" + where.file_name() + ":" +
                           std::to_string(where.line()) + ")");
}

namespace {

Allocator allocator{};

// For destructors, which cannot throw: what failed there is not the next launch's error.
void forget_failure(cudaError_t code) {
  if (code != cudaSuccess) cudaGetLastError();
}

int attribute(cudaDeviceAttr what) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&value, what, device), "cudaDeviceGetAttribute");
  return value;
}

}  // namespace

void set_allocator(Allocator a) { allocator = a; }

Workspace::Workspace(std::size_t bytes, Stream stream) : data_(nullptr), stream_(stream), free_(allocator.free) {
  if (bytes == 0) return;
  if (allocator.allocate != nullptr) {
    data_ = allocator.allocate(bytes, stream);
  } else {
    check(cudaMallocAsync(&data_, bytes, stream), "cudaMallocAsync");
  }
}

Workspace::~Workspace() {
  if (data_ == nullptr) return;
  if (free_ != nullptr) {
    free_(data_);
  } else {
    forget_failure(cudaFreeAsync(data_, stream_));
  }
}

void zero(void* p, std::size_t bytes, Stream stream) {
  if (bytes > 0) check(cudaMemsetAsync(p, 0, bytes, stream), "cudaMemsetAsync");
}

int device_arch() {
  return attribute(cudaDevAttrComputeCapabilityMajor) * 10 + attribute(cudaDevAttrComputeCapabilityMinor);
}

int sm_count() { return attribute(cudaDevAttrMultiProcessorCount); }

std::string unavailable_reason() {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code == cudaSuccess) return count > 0 ? "" : "cudaGetDeviceCount finds no device";
  cudaGetLastError();
  return std::string("cudaGetDeviceCount: error ") + std::to_string(static_cast<int>(code)) + ", " +
         cudaGetErrorString(code);
}

UseDevice::UseDevice(int index) {
  int current = 0;
  check(cudaGetDevice(&current), "cudaGetDevice");
  if (index == current) return;
  check(cudaSetDevice(index), "cudaSetDevice");
  before_ = current;
}

UseDevice::~UseDevice() {
  if (before_ != kUnchanged) forget_failure(cudaSetDevice(before_));
}

#else

void set_allocator(Allocator) {}

Workspace::Workspace(std::size_t bytes, Stream stream) : data_(simt::device_malloc(bytes)), stream_(stream) {}
Workspace::~Workspace() { simt::device_free(data_); }

void zero(void* p, std::size_t bytes, Stream) { simt::device_zero(p, bytes); }

int device_arch() { return simt::config().arch; }
int sm_count() { return 4; }  // few, so that grids sized by it take more than one turn

std::string unavailable_reason() { return ""; }  // not reached: nobody asks why there is no emulator

UseDevice::UseDevice(int /*index*/) {}
UseDevice::~UseDevice() = default;

#endif

}  // namespace stapes::cuda
