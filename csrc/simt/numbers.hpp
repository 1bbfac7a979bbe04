// __half and __nv_bfloat16 as cuda_fp16.h and cuda_bf16.h have them: storage, conversions, pairs; no arithmetic.
// Conversions to 16 bits round to nearest even, as the hardware does; NaN becomes 0x7fff.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "simt/vectors.hpp"

struct __half {  // trivial, so that a __shared__ array of them needs no constructor
  std::uint16_t bits;
};
struct __nv_bfloat16 {
  std::uint16_t bits;
};
struct alignas(4) __half2 {
  __half x, y;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
using half = __half;
using half2 = __half2;
using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;

inline float __half2float(__half v) {
  const std::uint32_t sign = std::uint32_t(v.bits & 0x8000u) << 16, exponent = (v.bits >> 10) & 31u;
  const std::uint32_t mantissa = v.bits & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent == 0) return (sign != 0 ? -1.0f : 1.0f) * float(mantissa) * 0x1p-24f;
  return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

inline __half __float2half(float value) {
  const std::uint32_t all = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (all >> 16) & 0x8000u, magnitude = all & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {0x7fff};
  if (magnitude >= 0x477ff000u) return {std::uint16_t(sign | 0x7c00u)};  // 65520 and more: infinity
  if (magnitude < 0x38800000u) {                                         // below 2^-14: subnormal, in units of 2^-24
    return {std::uint16_t(sign | std::uint32_t(std::nearbyintf(std::bit_cast<float>(magnitude) * 0x1p24f)))};
  }
  const std::uint32_t rebased = magnitude - (112u << 23);
  return {std::uint16_t(sign | ((rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13))};
}

inline float __bfloat162float(__nv_bfloat16 v) { return std::bit_cast<float>(std::uint32_t(v.bits) << 16); }

inline __nv_bfloat16 __float2bfloat16(float value) {
  const std::uint32_t all = std::bit_cast<std::uint32_t>(value);
  if ((all & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
  return {std::uint16_t((all + 0x7fffu + ((all >> 16) & 1u)) >> 16)};
}

inline __half __float2half_rn(float v) { return __float2half(v); }
inline __nv_bfloat16 __float2bfloat16_rn(float v) { return __float2bfloat16(v); }
inline std::uint16_t __half_as_ushort(__half v) { return v.bits; }
inline __half __ushort_as_half(std::uint16_t bits) { return {bits}; }
inline std::uint16_t __bfloat16_as_ushort(__nv_bfloat16 v) { return v.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(std::uint16_t bits) { return {bits}; }

inline float2 __half22float2(__half2 v) { return {__half2float(v.x), __half2float(v.y)}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half(x), __float2half(y)}; }
inline __half2 __float22half2_rn(float2 v) { return __floats2half2_rn(v.x, v.y); }
inline float2 __bfloat1622float2(__nv_bfloat162 v) { return {__bfloat162float(v.x), __bfloat162float(v.y)}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__float2bfloat16(x), __float2bfloat16(y)}; }
inline __nv_bfloat162 __float22bfloat162_rn(float2 v) { return __floats2bfloat162_rn(v.x, v.y); }
