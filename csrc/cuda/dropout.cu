// dropout: y[i] = x[i] / (1 - p) where element i is kept, else 0; the backward is the same function of dy.
// Element i uses Philox4x32-10 with key = seed, counter = offset + i / 4 (128 bits, of which offset fills the low 64),
// word i % 4; kept when (word >> 8) * 2^-24 >= p. The numbers are the CPU's.
// Layout: any shape, C order; y may be x.
// Work: a thread of a grid-stride loop takes a unit of 16 bytes: one counter for four float32 elements, two for eight
// of 16 bits. The ten rounds, 20 wide products a counter, stay in registers.
// Launch bounds: 256 threads.
// Numerics: kept or not is decided in whole numbers of 24 bits, exactly; the product in float32. Overwrites.
// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
// Measured: not measured.
#include <cmath>

#include "cuda/dtype.cuh"
#include "cuda/elementwise.cuh"
#include "cuda/number.cuh"
#include "ops/kernels.hpp"

namespace stapes::cuda {
namespace {

// The four words of counter offset + index.
__device__ __forceinline__ void philox(std::uint64_t seed, std::uint64_t offset, std::uint64_t index,
                                       std::uint32_t (&words)[4]) {
  const std::uint64_t low = offset + index;
  words[0] = static_cast<std::uint32_t>(low);
  words[1] = static_cast<std::uint32_t>(low >> 32);
  words[2] = low < offset ? 1 : 0;  // the carry into the high half
  words[3] = 0;
  auto key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    constexpr std::uint32_t kFactor0 = 0xD2511F53, kFactor2 = 0xCD9E8D57;
    const std::uint32_t high0 = __umulhi(kFactor0, words[0]), low0 = kFactor0 * words[0];
    const std::uint32_t high2 = __umulhi(kFactor2, words[2]), low2 = kFactor2 * words[2];
    words[0] = high2 ^ words[1] ^ key0;
    words[1] = low2;
    words[2] = high0 ^ words[3] ^ key1;
    words[3] = low0;
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
}

template <class T>
struct Problem {
  const T* x;
  T* y;
  std::int64_t size;
  bool whole;
  std::uint32_t threshold;  // of 24 bits: below it an element is dropped
  float scale;
  std::uint64_t seed;
  Number<std::uint64_t> offset;
};

template <class T>
__global__ void __launch_bounds__(kMapThreads) dropout_kernel(Problem<T> p) {
  constexpr int V = kVec<T>;
  const std::int64_t step = std::int64_t{gridDim.x} * kMapThreads * V;
  const std::uint64_t offset = value_of(p.offset);
  for (std::int64_t at = (std::int64_t{blockIdx.x} * kMapThreads + threadIdx.x) * V; at < p.size; at += step) {
    const int n = unit_size<V>(p.size, at);
    float v[V];
    load_unit<V>(p.x + at, n, p.whole, v);
#pragma unroll
    for (int i = 0; i < V; i += 4) {
      std::uint32_t words[4];
      philox(p.seed, offset, static_cast<std::uint64_t>((at + i) / 4), words);
#pragma unroll
      for (int w = 0; w < 4; ++w) v[i + w] = (words[w] >> 8) >= p.threshold ? v[i + w] * p.scale : 0.0f;
    }
    store_unit<V>(p.y + at, n, p.whole, v);
  }
}

}  // namespace

void dropout(const DropoutArgs& a, Stream stream) {
  with_cuda_dtype(a.dtype, [&]<class T>(T) {
    const Problem<T> p{static_cast<const T*>(a.x),
                       static_cast<T*>(a.y),
                       a.size,
                       is_aligned(a.x) && is_aligned(a.y),
                       static_cast<std::uint32_t>(std::ceil(a.p * 0x1p24)),
                       static_cast<float>(1.0 / (1.0 - a.p)),
                       a.seed,
                       a.offset};
    const unsigned grid = grid_for(ceil_div(a.size, std::int64_t{kMapThreads} * kVec<T>));
    launch(dropout_kernel<T>, grid, kMapThreads, 0, stream, p);
  });
}

}  // namespace stapes::cuda
