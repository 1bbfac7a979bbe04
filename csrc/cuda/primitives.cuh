// Small things of which kernels are made: vector accesses, cp.async, reductions, conversions to and from float.
#pragma once

#include "cuda/runtime.cuh"

namespace stapes::cuda {

using half = __half;
using bfloat16 = __nv_bfloat16;

// ---- vector accesses: one of sizeof(V) bytes; p must be a multiple of that
template <class V, class T>
__device__ __forceinline__ V load_vec(const T* p) {
#ifndef __CUDACC__
  simt::check_vector(p, sizeof(V), false);
#endif
  return *reinterpret_cast<const V*>(p);
}

template <class V, class T>
__device__ __forceinline__ void store_vec(T* p, const V& v) {
#ifndef __CUDACC__
  simt::check_vector(p, sizeof(V), true);
#endif
  *reinterpret_cast<V*>(p) = v;
}

// ---- cp.async: global to shared memory without registers. Zeros arrive when !pred, and src is not read then.
// Before sm_80 the copy is made at once; commit and wait do nothing there. A __syncthreads is needed as ever.
// Commit groups without a condition, so that each thread has as many as `Keep` counts.
#ifdef __CUDACC__
__device__ __forceinline__ unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}
#endif

__device__ __forceinline__ void cp_async16(void* dst, const void* src, bool pred) {
#ifndef __CUDACC__
  simt::cp_async(dst, src, 16, pred);
#elif __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(dst)), "l"(src), "r"(pred ? 16 : 0)
               : "memory");
#else
  *static_cast<uint4*>(dst) = pred ? *static_cast<const uint4*>(src) : make_uint4(0, 0, 0, 0);
#endif
}

__device__ __forceinline__ void cp_async4(void* dst, const void* src, bool pred) {
#ifndef __CUDACC__
  simt::cp_async(dst, src, 4, pred);
#elif __CUDA_ARCH__ >= 800
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(dst)), "l"(src), "r"(pred ? 4 : 0)
               : "memory");
#else
  *static_cast<unsigned*>(dst) = pred ? *static_cast<const unsigned*>(src) : 0u;
#endif
}

__device__ __forceinline__ void cp_async_commit() {
#ifndef __CUDACC__
  simt::cp_async_commit();
#elif __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most the last `Keep` groups of this thread are on their way.
template <int Keep>
__device__ __forceinline__ void cp_async_wait() {
#ifndef __CUDACC__
  simt::cp_async_wait(Keep);
#elif __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(Keep) : "memory");
#endif
}

// ---- float, __half, __nv_bfloat16. To 16 bits: to nearest, ties to even.
__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(half v) { return __half2float(v); }
__device__ __forceinline__ float to_float(bfloat16 v) { return __bfloat162float(v); }

template <class T>
__device__ __forceinline__ T from_float(float v);
template <>
__device__ __forceinline__ float from_float<float>(float v) {
  return v;
}
template <>
__device__ __forceinline__ half from_float<half>(float v) {
  return __float2half_rn(v);
}
template <>
__device__ __forceinline__ bfloat16 from_float<bfloat16>(float v) {
  return __float2bfloat16_rn(v);
}

// Two 16-bit values in a register, the first in the low half.
template <class T>
__device__ __forceinline__ float2 unpack2(std::uint32_t v);
template <>
__device__ __forceinline__ float2 unpack2<half>(std::uint32_t v) {
  return __half22float2(reinterpret_cast<const __half2&>(v));
}
template <>
__device__ __forceinline__ float2 unpack2<bfloat16>(std::uint32_t v) {
  return __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(v));
}

template <class T>
__device__ __forceinline__ std::uint32_t pack2(float x, float y);
template <>
__device__ __forceinline__ std::uint32_t pack2<half>(float x, float y) {
  const __half2 v = __floats2half2_rn(x, y);
  return reinterpret_cast<const std::uint32_t&>(v);
}
template <>
__device__ __forceinline__ std::uint32_t pack2<bfloat16>(float x, float y) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(x, y);
  return reinterpret_cast<const std::uint32_t&>(v);
}

// Eight of them in four registers.
template <class T>
__device__ __forceinline__ void unpack8(const uint4& v, float (&out)[8]) {
  const std::uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = unpack2<T>(words[i]);
    out[2 * i] = pair.x;
    out[2 * i + 1] = pair.y;
  }
}

template <class T>
__device__ __forceinline__ uint4 pack8(const float (&v)[8]) {
  return make_uint4(pack2<T>(v[0], v[1]), pack2<T>(v[2], v[3]), pack2<T>(v[4], v[5]), pack2<T>(v[6], v[7]));
}

// kVec<T> elements by one access of 16 bytes.
template <class T>
inline constexpr int kVec = 16 / static_cast<int>(sizeof(T));

template <class T>
__device__ __forceinline__ void load_floats(const T* p, float (&out)[kVec<T>]) {
  if constexpr (sizeof(T) == 4) {
    const float4 v = load_vec<float4>(p);
    out[0] = v.x;
    out[1] = v.y;
    out[2] = v.z;
    out[3] = v.w;
  } else {
    unpack8<T>(load_vec<uint4>(p), out);
  }
}

template <class T>
__device__ __forceinline__ void store_floats(T* p, const float (&v)[kVec<T>]) {
  if constexpr (sizeof(T) == 4) {
    store_vec(p, make_float4(v[0], v[1], v[2], v[3]));
  } else {
    store_vec(p, pack8<T>(v));
  }
}

// ---- reductions, in an order fixed by the block's size
struct Max {  // NaN wins
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};
struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

// Every lane gets the result.
template <class T, class Op>
__device__ __forceinline__ T warp_reduce(T v, Op op) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) v = op(v, __shfl_xor_sync(~0u, v, lanes));
  return v;
}

// Every thread of a block of `Threads` x 1 x 1 gets the result. `red` is shared memory for Threads / 32 values, the
// caller's: a __shared__ array in here would be one more for each instance of the template.
template <int Threads, class T, class Op>
__device__ T block_reduce(T v, Op op, T neutral, T* red) {
  static_assert(Threads % 32 == 0 && Threads <= 1024);
  v = warp_reduce(v, op);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  __syncthreads();  // red may still be read by the call before
  if (lane == 0) red[warp] = v;
  __syncthreads();
  return warp_reduce(lane < Threads / 32 ? red[lane] : neutral, op);
}

}  // namespace stapes::cuda
