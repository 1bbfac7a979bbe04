// Matrix instructions of a warp: ldmatrix, mma.sync with float32 accumulators, tf32 and the split that gives products
// of float32 about 2^-22 of relative error. All 32 lanes must call together.
//
// Fragments, with g = lane / 4 and t = lane % 4 (PTX manual, "Matrix fragments for mma"):
//   d[0..3]  (g, 2t) (g, 2t+1) (g+8, 2t) (g+8, 2t+1)
//   16 bits  a[0..3] rows g, g+8, g, g+8; columns 2t, 2t+1, and 8 more in a[2], a[3]; b[0..1] rows 2t, 2t+1 (+8),
//   column g tf32     a[0..3] (g, t) (g+8, t) (g, t+4) (g+8, t+4);                             b[0..1] (t, g) (t+4, g)
#pragma once

#include "cuda/primitives.cuh"

namespace stapes::cuda {

// Where a function below has the emulator's form, it takes the caller's place last, which errors name.
#ifdef __CUDACC__
#define STAPES_HERE
#else
#define STAPES_HERE , simt::Here here = simt::Here::current()
#endif

// 8x8 matrices of 16-bit elements from shared memory. Lane i gives the address of row i % 8 of matrix i / 8, a multiple
// of 16; of x2, lanes 16 to 31 give any valid address. Register m of lane 4g + t gets row g, columns 2t and 2t + 1 of
// matrix m, or of its transpose.
template <bool Trans = false>
__device__ __forceinline__ void ldmatrix_x4(std::uint32_t (&r)[4], const void* row STAPES_HERE) {
#ifndef __CUDACC__
  simt::Ldmatrix args{row, r, Trans};
  simt::collective(simt::exec_ldmatrix_x4, ~0u, &args, true, here);
#else
  if constexpr (Trans) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
  }
#endif
}

template <bool Trans = false>
__device__ __forceinline__ void ldmatrix_x2(std::uint32_t (&r)[2], const void* row STAPES_HERE) {
#ifndef __CUDACC__
  simt::Ldmatrix args{row, r, Trans};
  simt::collective(simt::exec_ldmatrix_x2, ~0u, &args, true, here);
#else
  if constexpr (Trans) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
  }
#endif
}

// d += a(16x8) * b(8x8), f16: sm_75 and newer.
__device__ __forceinline__ void mma_m16n8k8_f16(float (&d)[4], const std::uint32_t (&a)[2],
                                                const std::uint32_t (&b)[1] STAPES_HERE) {
#ifndef __CUDACC__
  simt::Mma args{d, a, b};
  simt::collective(simt::exec_mma_m16n8k8_f16, ~0u, &args, true, here);
#else
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(b[0]));
#endif
}

// d += a(16x16) * b(16x8), f16. Before sm_80: two of k8.
__device__ __forceinline__ void mma_m16n8k16_f16(float (&d)[4], const std::uint32_t (&a)[4],
                                                 const std::uint32_t (&b)[2] STAPES_HERE) {
#ifndef __CUDACC__
  simt::Mma args{d, a, b};
  simt::collective(simt::exec_mma_m16n8k16_f16, ~0u, &args, true, here);
#elif __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  mma_m16n8k8_f16(d, {a[0], a[1]}, {b[0]});
  mma_m16n8k8_f16(d, {a[2], a[3]}, {b[1]});
#endif
}

// d += a(16x16) * b(16x8), bf16: sm_80 and newer; the host must not launch it on older ones.
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                                                  const std::uint32_t (&b)[2] STAPES_HERE) {
#ifndef __CUDACC__
  simt::Mma args{d, a, b};
  simt::collective(simt::exec_mma_m16n8k16_bf16, ~0u, &args, true, here);
#elif __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}

// The one for the type of the operands.
template <class T>
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4],
                                             const std::uint32_t (&b)[2] STAPES_HERE) {
  static_assert(sizeof(T) == 2);
#ifdef __CUDACC__
  if constexpr (std::is_same_v<T, half>) {
    mma_m16n8k16_f16(d, a, b);
  } else {
    mma_m16n8k16_bf16(d, a, b);
  }
#else
  if constexpr (std::is_same_v<T, half>) {
    mma_m16n8k16_f16(d, a, b, here);
  } else {
    mma_m16n8k16_bf16(d, a, b, here);
  }
#endif
}

// d += a(16x8) * b(8x8), tf32: sm_80 and newer; the host must not launch it on older ones.
__device__ __forceinline__ void mma_m16n8k8_tf32(float (&d)[4], const std::uint32_t (&a)[4],
                                                 const std::uint32_t (&b)[2] STAPES_HERE) {
#ifndef __CUDACC__
  simt::Mma args{d, a, b};
  simt::collective(simt::exec_mma_m16n8k8_tf32, ~0u, &args, true, here);
#elif __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}

#undef STAPES_HERE

// To 10 bits of mantissa, to nearest, ties away from zero (cvt.rna).
__device__ __forceinline__ std::uint32_t to_tf32(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  std::uint32_t r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
  return r;
#else
  const std::uint32_t bits = __float_as_uint(x);
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return finite ? (bits + 0x1000u) & 0xffffe000u : bits;
#endif
}

// x = high + low, up to 2^-22 |x|. A product of float32 is then the sum of three of tf32, the small ones first:
// low * high + high * low + high * high ("3xTF32", CUTLASS example 27).
struct Tf32Split {
  std::uint32_t high, low;
};
__device__ __forceinline__ Tf32Split split_tf32(float x) {
  const std::uint32_t high = to_tf32(x);
  return {high, to_tf32(x - __uint_as_float(high))};
}

}  // namespace stapes::cuda
