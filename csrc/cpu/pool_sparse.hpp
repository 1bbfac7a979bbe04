// Behind ReLU and max pooling with windows that do not overlap, a window passes gradient at one place at most: what the
// backward kernels of the fused convolution share. Of the gradient dz of the convolution's output at most one in
// pool_h * pool_w numbers is not zero, so they go over the pooled gradient and its argmax instead of over dz.
#pragma once

#include "cpu/conv2d.hpp"
#include "cpu/pool_window.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

struct PoolGrid {
  Index N, P, Q, K;  // of the convolution
  Index pool_h, pool_w;
  Index rows() const { return P / pool_h; }
  Index cols() const { return Q / pool_w; }
  Index area() const { return pool_h * pool_w; }
};

// The convolution at the positions that windows cover.
inline Conv2dShape covered(Conv2dShape s, const PoolGrid& pool) {
  s.window.P = pool.rows() * pool.pool_h;
  s.window.Q = pool.cols() * pool.pool_w;
  return s;
}

// A run of numbers in vectors, or several runs, of which 8 to kMostSums are summed at a time: enough to hide the latency
// of FMA, and all that the registers hold. Short ones have `kChains` sums for each vector.
inline constexpr int kMostSums = STAPES_VECTOR_BYTES == 64 ? 24 : 12;
inline constexpr int kMostRunVectors = 12;
template <int Vectors>
inline constexpr int kChains = kMostSums / Vectors > 4 ? 4 : kMostSums / Vectors;

// Runs are cut into pieces of nearly equal numbers of vectors.
template <class T>
struct RunPieces {
  Index vectors, count;

  explicit RunPieces(Index length) : vectors(ceil_div(length, kLanes<T>)), count(ceil_div(vectors, kMostRunVectors)) {}
  Range piece(Index i) const { return part(vectors, count, i); }
};

// Calls f.operator()<NV>() for nv = 1 .. kMostRunVectors.
template <int NV = kMostRunVectors, class F>
[[gnu::always_inline]] inline void with_run(Index nv, const F& f) {
  if constexpr (NV > 1) {
    if (nv < NV) return with_run<NV - 1>(nv, f);
  }
  f.template operator()<NV>();
}

// acc[chain][run][v] += g * runs[run][offset + v]
template <class T, int NV, int Runs = 1>
struct RunSums {
  static constexpr int kChainsEach = kChains<NV * Runs>;
  Vec<T> acc[kChainsEach][Runs][NV] = {};

  [[gnu::always_inline]] void add(int chain, T g, const T* const* runs, Index offset) {
    const Vec<T> factor = splat(g);
#pragma GCC unroll 3
    for (int run = 0; run < Runs; ++run)
#pragma GCC unroll 12
      for (int v = 0; v < NV; ++v) acc[chain][run][v] += factor * load(runs[run] + offset + v * kLanes<T>);
  }

  // Of all chains, in order.
  [[gnu::always_inline]] void join() {
#pragma GCC unroll 4
    for (int chain = 1; chain < kChainsEach; ++chain)
#pragma GCC unroll 3
      for (int run = 0; run < Runs; ++run)
#pragma GCC unroll 12
        for (int v = 0; v < NV; ++v) acc[0][run][v] += acc[chain][run][v];
  }
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
