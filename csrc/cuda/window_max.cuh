// The maximum of a pooling window whose values are in registers, and what ReLU makes of it.
#pragma once

#include <cstdint>

#include "cuda/runtime.cuh"

namespace stapes::cuda {

inline constexpr int kDead = 255;  // argmax where ReLU cut the maximum: no gradient passes

struct WindowMax {
  float value;  // after ReLU
  int place;    // of the first maximum, or of the first NaN, in the order of z; kDead where the maximum is <= 0
};

template <int kArea>
__device__ __forceinline__ WindowMax window_max(const float (&z)[kArea]) {
  float best = z[0];
  int place = 0;
#pragma unroll
  for (int i = 1; i < kArea; ++i) {
    const bool take = !(z[i] <= best) && best == best;
    best = take ? z[i] : best;
    place = take ? i : place;
  }
  const bool dead = best <= 0.0f;
  return {dead ? 0.0f : best, dead ? kDead : place};
}

}  // namespace stapes::cuda
