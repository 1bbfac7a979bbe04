// ln of a vector.
#pragma once

#include <cstdint>

#include "cpu/simd.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

// ln x = e ln 2 + 2 artanh s, x = 2^e m, sqrt(1/2) <= m < sqrt(2), s = (m - 1) / (m + 1); of artanh's series the
// remainder is below 1e-13. -infinity below the smallest normal number; NaN stays, and comes of negative numbers.
[[gnu::always_inline]] inline Vec<double> log_of(Vec<double> x) {
  typedef std::uint64_t Bits __attribute__((vector_size(STAPES_VECTOR_BYTES)));  // those of NaN may wrap around
  constexpr std::uint64_t kRootOfHalf = 0x3fe6a09e667f3bcd, kExponent = 0xfffULL << 52, kBias = 1023ULL << 52;
  constexpr std::uint64_t kTwoTo52 = 0x4330000000000000;
  constexpr double kSmallest = 2.2250738585072014e-308, kLargest = 1.7976931348623157e308;
  const Bits bits = reinterpret_cast<Bits>(x), above = bits - kRootOfHalf;
  const Vec<double> m = reinterpret_cast<Vec<double>>(bits - (above & kExponent));
  const Bits biased = ((above + kBias) >> 52) & 0x7ff;  // as a number: into the last bits of 2^52
  const Vec<double> e = reinterpret_cast<Vec<double>>(biased | kTwoTo52) - (4503599627370496.0 + 1023.0);
  const Vec<double> s = (m - 1.0) / (m + 1.0), z = s * s;
  constexpr int kTerms = 8;
  Vec<double> sum{};
  for (int k = kTerms; k >= 0; --k) sum = sum * z + 2.0 / (2 * k + 1);
  const Vec<double> ln = e * 0.69314718055994530942 + s * sum;
  const Vec<double> normal = x >= kSmallest ? (x <= kLargest ? ln : x) : splat(-__builtin_inf());
  return x >= 0.0 ? normal : splat(__builtin_nan(""));
}

}  // namespace stapes::cpu::STAPES_ISA_NAME
