// Which places of a pooling window lie in the image, and which windows cover a pixel of it: along one axis. And the
// argmax of a few channels in registers.
#pragma once

#include "core/shapes.hpp"
#include "cuda/items.cuh"

namespace stapes::cuda {

struct PoolAxis {
  std::int64_t size, kernel, stride, pad, count;  // of the image; of a window; ...; padding before; windows
};
struct Range {
  std::int64_t begin, end;
  __device__ std::int64_t length() const { return end - begin; }
};

__device__ __forceinline__ PoolAxis rows_of(const Window2d& w, std::int64_t H) {
  return {H, w.kernel_h, w.stride_h, w.pad_top, w.P};
}
__device__ __forceinline__ PoolAxis columns_of(const Window2d& w, std::int64_t W) {
  return {W, w.kernel_w, w.stride_w, w.pad_left, w.Q};
}

// Places of window i that are not padding; none where all are.
__device__ __forceinline__ Range places_of(const PoolAxis& a, std::int64_t i) {
  const std::int64_t corner = i * a.stride - a.pad;
  const std::int64_t begin = min(max(-corner, std::int64_t{0}), a.kernel);
  return {begin, min(max(a.size - corner, begin), a.kernel)};
}

// The common window, of which a kernel can be compiled with all accesses known: 2 x 2, and nowhere padding.
inline bool is_plain_2x2(const Window2d& w) {
  return w.kernel_h == 2 && w.kernel_w == 2 && w.pad_top + w.pad_bottom + w.pad_left + w.pad_right == 0;
}

// Places of window (p, q) that are not padding, along H and along W; constants where the window is plain.
struct Inside {
  Range r, s;
};
template <bool kPlain2x2>
__device__ __forceinline__ Inside inside_of(const Window2d& w, std::int64_t H, std::int64_t W, std::int64_t p,
                                            std::int64_t q) {
  if constexpr (kPlain2x2) return {{0, 2}, {0, 2}};
  return {places_of(rows_of(w, H), p), places_of(columns_of(w, W), q)};
}

// Windows that cover pixel i.
__device__ __forceinline__ Range covering(const PoolAxis& a, std::int64_t i) {
  const std::int64_t at = i + a.pad;
  const std::int64_t begin = at < a.kernel ? 0 : divide(at - a.kernel, a.stride).quotient + 1;
  return {begin, min(divide(at, a.stride).quotient + 1, a.count)};
}

// The argmax of V channels, moved by accesses of at most 16 bytes.
template <class A, int V>
struct Places {
  static constexpr int kAtOnce = V * sizeof(A) < 16 ? V : 16 / static_cast<int>(sizeof(A));
  struct alignas(kAtOnce * sizeof(A)) Some {
    A at[kAtOnce];
  };
  Some some[V / kAtOnce];

  __device__ A& operator[](int v) { return some[v / kAtOnce].at[v % kAtOnce]; }
  __device__ void load(const A* p) {
#pragma unroll
    for (int i = 0; i < V / kAtOnce; ++i) some[i] = load_vec<Some>(p + i * kAtOnce);
  }
  __device__ void store(A* p) const {
#pragma unroll
    for (int i = 0; i < V / kAtOnce; ++i) store_vec(p + i * kAtOnce, some[i]);
  }
};

}  // namespace stapes::cuda
