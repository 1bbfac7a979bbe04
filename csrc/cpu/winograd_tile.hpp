// What Winograd's F(2x2, 3x3) and its transpose F(3x3, 2x2) have in common: tiles of 2 x 2 outputs, whose 4 x 4 patches
// are transformed to the 16 places where products are taken.
#pragma once

#include "cpu/simd.hpp"
#include "ops/kernels.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

inline constexpr std::int64_t kPlaces = 16;

inline bool is_3x3(const Conv2dShape& s) {
  const Window2d& w = s.window;
  return s.groups == 1 && w.kernel_h == 3 && w.kernel_w == 3 && w.stride_h == 1 && w.stride_w == 1 && w.dil_h == 1 &&
         w.dil_w == 1;
}

// B' d along one axis of a 4 x 4 patch: (d0 - d2, d1 + d2, d2 - d1, d1 - d3)
template <class V>
[[gnu::always_inline]] inline void transform_patch_axis(V* d, int step) {
  const V d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step];
  d[0] = d0 - d2;
  d[step] = d1 + d2;
  d[2 * step] = d2 - d1;
  d[3 * step] = d1 - d3;
}

// B' d B
template <class V>
[[gnu::always_inline]] inline void transform_patch(V (&d)[kPlaces]) {
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) transform_patch_axis(d + j, 4);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) transform_patch_axis(d + 4 * i, 1);
}

// The patch at `patch`, of whole vectors of C channels, to its places, which lie `step` apart.
template <class T>
void transform_patch(const T* patch, std::int64_t row, std::int64_t pixel, std::int64_t C, T* to, std::int64_t step) {
  for (std::int64_t c = 0; c < C; c += kLanes<T>) {
    Vec<T> d[kPlaces];
#pragma GCC unroll 16
    for (int e = 0; e < 16; ++e) d[e] = load(patch + e / 4 * row + e % 4 * pixel + c);
    transform_patch(d);
#pragma GCC unroll 16
    for (int e = 0; e < 16; ++e) store(to + e * step + c, d[e]);
  }
}

}  // namespace stapes::cpu::STAPES_ISA_NAME
