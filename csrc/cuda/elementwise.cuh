// Kernels bound by memory, which read and write each element once: arrays are cut into units of V elements, and each
// thread of a grid-stride loop takes one unit at a time, with one access to each array where all arrays begin at a
// multiple of 16 bytes; other arrays, and the last unit, are read and written element by element.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/primitives.cuh"
#include "cuda/runtime.cuh"

namespace stapes::cuda {

inline constexpr int kMapThreads = 256;

// As many blocks of kMapThreads as there is work for, and at most what fills the device.
inline unsigned grid_for(std::int64_t blocks) {
  const std::int64_t most = 8 * static_cast<std::int64_t>(sm_count());
  return static_cast<unsigned>(blocks < most ? blocks : most);
}

__host__ __device__ inline bool is_aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

// V elements at p, as floats; those from the n-th on are not read, and are 0. `whole`: one access may take all V.
template <int V, class T>
__device__ __forceinline__ void load_unit(const T* p, int n, bool whole, float (&v)[V]) {
  if (whole && n >= V) {
    if constexpr (V == kVec<T>) {
      load_floats(p, v);
    } else {
      static_assert(V == 4 && sizeof(T) == 2);
      const uint2 words = load_vec<uint2>(p);
      const float2 low = unpack2<T>(words.x), high = unpack2<T>(words.y);
      v[0] = low.x, v[1] = low.y, v[2] = high.x, v[3] = high.y;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < V; ++i) v[i] = i < n ? to_float(p[i]) : 0.0f;
}

// Writes the first n of V elements.
template <int V, class T>
__device__ __forceinline__ void store_unit(T* p, int n, bool whole, const float (&v)[V]) {
  if (whole && n >= V) {
    if constexpr (V == kVec<T>) {
      store_floats(p, v);
    } else {
      static_assert(V == 4 && sizeof(T) == 2);
      store_vec(p, make_uint2(pack2<T>(v[0], v[1]), pack2<T>(v[2], v[3])));
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < V; ++i) {
    if (i < n) p[i] = from_float<T>(v[i]);
  }
}

// How many elements the unit that begins at `at` has, at most V.
template <int V>
__device__ __forceinline__ int unit_size(std::int64_t size, std::int64_t at) {
  return size - at < V ? static_cast<int>(size - at) : V;
}

// y[i] = f(x[i]...). f.start() is called by each thread before the first element. y may be one of x.
template <int V, class Out, class F, class... X>
__global__ void __launch_bounds__(kMapThreads) map_kernel(Out* y, std::int64_t size, bool whole, F f, const X*... x) {
  const std::int64_t step = std::int64_t{gridDim.x} * kMapThreads * V;
  f.start();
  for (std::int64_t at = (std::int64_t{blockIdx.x} * kMapThreads + threadIdx.x) * V; at < size; at += step) {
    const int n = unit_size<V>(size, at);
    float in[sizeof...(X)][V], out[V];
    int k = 0;
    (load_unit<V>(x + at, n, whole, in[k++]), ...);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      if constexpr (sizeof...(X) == 1) {
        out[i] = f(in[0][i]);
      } else {
        out[i] = f(in[0][i], in[1][i]);
      }
    }
    store_unit<V>(y + at, n, whole, out);
  }
}

// What map_kernel's functions without a start() are made of.
struct Map {
  __device__ void start() {}
};

template <class Out, class F, class... X>
void map(Out* y, std::int64_t size, F f, Stream stream, const X*... x) {
  static_assert(sizeof...(X) == 1 || sizeof...(X) == 2);
  constexpr bool kOneType = (std::is_same_v<Out, X> && ...);
  constexpr int V = kOneType ? kVec<Out> : 4;
  const bool whole = is_aligned(y) && (is_aligned(x) && ...);
  const unsigned grid = grid_for(ceil_div(size, std::int64_t{kMapThreads} * V));
  launch(map_kernel<V, Out, F, X...>, grid, kMapThreads, 0, stream, y, size, whole, f, x...);
}

}  // namespace stapes::cuda
