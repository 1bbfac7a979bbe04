// exp of a vector, for what is at most 0: softmax takes the maximum off first.
#pragma once

#include "cpu/lanes.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

template <class T>
struct ExpConstants;
template <>
struct ExpConstants<float> {
  static constexpr int kMantissaBits = 23, kBias = 127, kDegree = 7;
  static constexpr float kLowest = -87.33654F;                               // log of the smallest normal number
  static constexpr float kRound = 12582912.0F;                               // 1.5 * 2^23
  static constexpr float kLn2High = 0.693359375F, kLn2Low = -2.1219444e-4F;  // n * high is exact
};
template <>
struct ExpConstants<double> {
  static constexpr int kMantissaBits = 52, kBias = 1023, kDegree = 13;
  static constexpr double kLowest = -708.3964185322641;
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kLn2High = 0.693145751953125, kLn2Low = 1.4286068203094172e-6;
};

// exp(x) = 2^n exp(r), x = n ln 2 + r, |r| <= ln 2 / 2; exp(r) by its Taylor polynomial, of which the
// remainder is below a sixth of an ulp. Within 2 ulp; 0 below the smallest normal number; NaN stays.
template <class T>
[[gnu::always_inline]] inline Vec<T> exp_of_negative(Vec<T> x) {
  using K = ExpConstants<T>;
  using I = Lanes<Vec<T>>;
  const Vec<T> rounded = x * T(1.44269504088896340736) + K::kRound;  // its last bits hold n
  const Vec<T> n = rounded - K::kRound;
  const Vec<T> r = (x - n * K::kLn2High) - n * K::kLn2Low;
  Vec<T> sum = splat(T(1));
  for (int k = K::kDegree; k >= 1; --k) sum = sum * (r * (T(1) / static_cast<T>(k))) + T(1);
  const I power = (reinterpret_cast<I>(rounded) + K::kBias) << K::kMantissaBits;
  return x < K::kLowest ? Vec<T>{} : sum * reinterpret_cast<Vec<T>>(power);
}

}  // namespace stapes::cpu::STAPES_ISA_NAME
