// relu
//   fwd: y = max(x, 0)
//   bwd: dx = dy where y > 0, else 0
// Layout: any shape; y may be x, and dx may be dy.
// Work: elementwise.cuh; a thread holds one unit of 16 bytes of each array.
// Launch bounds: 256 threads.
// Numerics: exact. NaN passes: y is NaN where x is, and gradients pass where y is NaN. Both overwrite.
// Measured: not measured.
#include "cuda/dtype.cuh"
#include "cuda/elementwise.cuh"
#include "ops/kernels.hpp"

namespace stapes::cuda {
namespace {

struct Relu : Map {
  __device__ float operator()(float x) const { return x < 0.0f ? 0.0f : x; }
};
struct ReluGradient : Map {
  __device__ float operator()(float dy, float y) const { return y <= 0.0f ? 0.0f : dy; }
};

}  // namespace

void relu_fwd(const ReluFwdArgs& a, Stream stream) {
  with_cuda_dtype(a.dtype,
                  [&]<class T>(T) { map(static_cast<T*>(a.y), a.size, Relu{}, stream, static_cast<const T*>(a.x)); });
}

void relu_bwd(const ReluBwdArgs& a, Stream stream) {
  with_cuda_dtype(a.dtype, [&]<class T>(T) {
    map(static_cast<T*>(a.dx), a.size, ReluGradient{}, stream, static_cast<const T*>(a.dy), static_cast<const T*>(a.y));
  });
}

}  // namespace stapes::cuda
