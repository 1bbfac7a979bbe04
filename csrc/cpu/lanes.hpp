// Loops over channels, the innermost axis, in vectors; where there are fewer channels than lanes,
// one by one. The body is written once, over V = Vec<T> or V = T.
#pragma once

#include <cstdint>

#include "cpu/simd.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

// Integers as wide as T, as many as V has lanes: what comparing two V gives.
template <class V>
struct LanesOf {
  using type = decltype(V{} == V{});
};
template <>
struct LanesOf<float> {
  using type = std::int32_t;
};
template <>
struct LanesOf<double> {
  using type = std::int64_t;
};
template <class V>
using Lanes = typename LanesOf<V>::type;

template <class V, class T>
[[gnu::always_inline]] inline V load_as(const T* p) {
  if constexpr (sizeof(V) == sizeof(T)) {
    return *p;
  } else {
    return load(p);
  }
}

template <class V, class T>
[[gnu::always_inline]] inline void store_as(T* p, V v) {
  if constexpr (sizeof(V) == sizeof(T)) {
    *p = v;
  } else {
    store(p, v);
  }
}

// f(V{}, c) for channels c, c + 1, ... of V. The last vector may overlap the one before it, so f
// must write the same when it is called twice.
template <class T, class F>
[[gnu::always_inline]] inline void for_channels(std::int64_t C, const F& f) {
  constexpr std::int64_t kStep = kLanes<T>;
  if (C < kStep) {
    for (std::int64_t c = 0; c < C; ++c) f(T{}, c);
    return;
  }
  for (std::int64_t c = 0; c < C; c += kStep) f(Vec<T>{}, c <= C - kStep ? c : C - kStep);
}

// to[i] = from[i] + from[i + step] + ..., `count` of them in order, for i < n: the sums of pieces. Of none, 0.
template <class T>
void add_pieces(const T* from, std::int64_t count, std::int64_t step, std::int64_t n, T* to) {
  for_channels<T>(n, [&]<class V>(V, std::int64_t i) {
    V sum = count > 0 ? load_as<V>(from + i) : V{};
    for (std::int64_t j = 1; j < count; ++j) sum += load_as<V>(from + j * step + i);
    store_as(to + i, sum);
  });
}

// As for_channels, but each channel once: f may change what it reads.
template <class T, class F>
[[gnu::always_inline]] inline void for_each_channel(std::int64_t C, const F& f) {
  std::int64_t c = 0;
  for (; c + kLanes<T> <= C; c += kLanes<T>) f(Vec<T>{}, c);
  for (; c < C; ++c) f(T{}, c);
}

}  // namespace stapes::cpu::STAPES_ISA_NAME
