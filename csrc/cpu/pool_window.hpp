// The maximum of one window over all channels, for max pooling alone and fused behind a convolution.
#pragma once

#include <type_traits>

#include "cpu/lanes.hpp"
#include "cpu/parallel.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

inline constexpr std::int64_t kDead = 255;  // argmax where ReLU cut the maximum: no gradient passes

template <class V>
[[gnu::always_inline]] inline V index_splat(std::int64_t value) {
  if constexpr (std::is_integral_v<V>) {
    return static_cast<V>(value);
  } else {
    return V{} + static_cast<std::remove_cvref_t<decltype(V{}[0])>>(value);
  }
}

// One window over all channels. x is the image; corner is the window's place 0 in it (in elements,
// negative in padding); places r, s are those that lie in the image. The places found are as wide as T
// at first, and made narrow in a loop of their own, which the compiler turns into packing instructions. With kRelu a
// window whose maximum is <= 0 gives 0 and kDead.
template <bool kRelu, class T, class A>
[[gnu::always_inline]] inline void pool_window(const T* x, std::int64_t corner, std::int64_t row, std::int64_t C,
                                               Range r, Range s, std::int64_t kernel_w, T* y, A* argmax) {
  constexpr std::int64_t kBlock = 64;
  alignas(64) Lanes<T> places[kBlock];
  for (std::int64_t first = 0; first < C; first += kBlock) {
    const std::int64_t n = least(C - first, kBlock);
    for_channels<T>(n, [&]<class V>(V, std::int64_t c) {
      const T* at = x + corner + first + c;
      V best = load_as<V>(at + r.begin * row + s.begin * C);
      Lanes<V> place = index_splat<Lanes<V>>(r.begin * kernel_w + s.begin);
      for (std::int64_t i = r.begin; i < r.end; ++i) {
        for (std::int64_t j = s.begin; j < s.end; ++j) {
          const V v = load_as<V>(at + i * row + j * C);
          const auto stays = v <= best;
          const auto take = (stays == 0) & (best == best);  // larger, or the first NaN
          best = take ? v : best;
          place = take ? index_splat<Lanes<V>>(i * kernel_w + j) : place;
        }
      }
      if constexpr (kRelu) {
        const auto dead = best <= V{};
        best = dead ? V{} : best;
        place = dead ? index_splat<Lanes<V>>(kDead) : place;
      }
      store_as(y + first + c, best);
      __builtin_memcpy(places + c, &place, sizeof(place));
    });
    for (std::int64_t c = 0; c < n; ++c) argmax[first + c] = static_cast<A>(places[c]);
  }
}

}  // namespace stapes::cpu::STAPES_ISA_NAME
