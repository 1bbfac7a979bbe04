// find_inf: found_inf is not 0 where any gradient is infinite or NaN, else 0
// update_scale: after a step that was done, ++step, ++good_steps, and where these are growth_interval many
//   scale *= growth_factor (unless it would be infinite) and good_steps = 0;
//   after one that was not, since found_inf is not 0, scale *= backoff_factor and good_steps = 0
// Layout: any shapes, one dtype.
// Work: find_inf: one launch for kMostTensors tensors (tensor_table.cuh); a block of 256 threads takes kChunk elements
// of one tensor, in units of 16 bytes where it begins at a multiple of these. update_scale: one thread.
// Launch bounds: 256 threads.
// Numerics: exact, as long as the factors are powers of two. Warps that find something add 1 to found_inf, in whole
// numbers, so that it is the same on each run.
// Source: P. Micikevicius et al., "Mixed Precision Training", 2018; the rule of torch.amp.GradScaler.
// Measured: not measured.
#include <cmath>

#include "cuda/dtype.cuh"
#include "cuda/elementwise.cuh"
#include "cuda/tensor_table.cuh"
#include "ops/kernels.hpp"

namespace stapes::cuda {
namespace {

using std::int64_t;

constexpr int kThreads = 256, kMostTensors = 192, kChunk = 8192;
using Table = TensorTable<GradTensor, kMostTensors, kChunk>;

__device__ bool is_finite(float v) { return fabsf(v) < INFINITY; }

template <class T>
__global__ void __launch_bounds__(kThreads) find_inf_kernel(const Table table, int* found_inf) {
  constexpr int V = kVec<T>;
  int64_t begin, end;
  const GradTensor& t = table.of_block(begin, end);
  const T* grad = static_cast<const T*>(t.grad);
  const bool whole = is_aligned(grad);
  bool found = false;
  for (int64_t at = begin + static_cast<int>(threadIdx.x) * V; at < end; at += kThreads * V) {
    float g[V];
    load_unit<V>(grad + at, unit_size<V>(end, at), whole, g);
#pragma unroll
    for (int i = 0; i < V; ++i) found = found || !is_finite(g[i]);
  }
  if (__any_sync(~0u, found) && threadIdx.x % 32 == 0) atomicAdd(found_inf, 1);
}

__global__ void __launch_bounds__(32) update_scale_kernel(const UpdateScaleArgs a) {
  if (threadIdx.x != 0) return;
  if (*a.found_inf != 0) {
    *a.scale *= static_cast<float>(a.backoff_factor);
    *a.good_steps = 0;
    return;
  }
  if (a.step != nullptr) ++*a.step;
  const int good_steps = *a.good_steps + 1;
  const bool grow = good_steps >= a.growth_interval;
  *a.good_steps = grow ? 0 : good_steps;
  const float grown = *a.scale * static_cast<float>(a.growth_factor);
  if (grow && is_finite(grown)) *a.scale = grown;
}

}  // namespace

void find_inf(const FindInfArgs& a, Stream stream) {
  zero(a.found_inf, sizeof *a.found_inf, stream);
  with_cuda_dtype(a.dtype, [&]<class T>(T) {
    for_tables<kMostTensors, kChunk>(a.tensors, a.count, [&](const Table& table, unsigned blocks) {
      launch(find_inf_kernel<T>, blocks, kThreads, 0, stream, table, a.found_inf);
    });
  });
}

void update_scale(const UpdateScaleArgs& a, Stream stream) { launch(update_scale_kernel, 1, 32, 0, stream, a); }

}  // namespace stapes::cuda
