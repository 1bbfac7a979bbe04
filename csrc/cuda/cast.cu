// cast: y = x in another of float32, float16 and bfloat16
// Layout: any shape.
// Work: elementwise.cuh; a thread takes four elements at a time, or a unit of 16 bytes where the dtypes are one.
// Launch bounds: 256 threads.
// Numerics: through float32, which holds every 16-bit number; rounds to nearest, ties to even; what is too large for
// float16 becomes infinite. Overwrites.
// Measured: not measured.
#include "cuda/dtype.cuh"
#include "cuda/elementwise.cuh"
#include "ops/kernels.hpp"

namespace stapes::cuda {
namespace {

struct Same : Map {
  __device__ float operator()(float x) const { return x; }
};

}  // namespace

void cast(const CastArgs& a, Stream stream) {
  with_cuda_dtype(a.from, [&]<class From>(From) {
    with_cuda_dtype(
        a.to, [&]<class To>(To) { map(static_cast<To*>(a.y), a.size, Same{}, stream, static_cast<const From*>(a.x)); });
  });
}

}  // namespace stapes::cuda
