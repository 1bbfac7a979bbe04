// Which places of a pooling window lie in the image, and which windows cover a place of it.
#pragma once

#include <cstdint>

#include "core/shapes.hpp"
#include "cpu/parallel.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

// Along one axis: size, kernel, stride, padding before, number of windows.
struct PoolAxis {
  std::int64_t size, kernel, stride, pad, count;
};

inline PoolAxis rows_of(const Window2d& w, std::int64_t H) { return {H, w.kernel_h, w.stride_h, w.pad_top, w.P}; }
inline PoolAxis columns_of(const Window2d& w, std::int64_t W) { return {W, w.kernel_w, w.stride_w, w.pad_left, w.Q}; }

// Places [begin, end) of window i that are not padding; begin == end where all are.
inline Range places_of(const PoolAxis& a, std::int64_t i) {
  const std::int64_t corner = i * a.stride - a.pad;
  const std::int64_t begin = clamp(-corner, 0, a.kernel);
  return {begin, clamp(a.size - corner, begin, a.kernel)};
}

// Windows [begin, end) that cover place i of the image.
inline Range covering(const PoolAxis& a, std::int64_t i) {
  const std::int64_t at = i + a.pad;
  const std::int64_t begin = at < a.kernel ? 0 : (at - a.kernel) / a.stride + 1;
  const std::int64_t end = at / a.stride + 1;
  return {begin, least(end, a.count)};
}

// How many rows of `width` elements make a task.
inline std::int64_t rows_per_task(std::int64_t width) { return width < kGrain ? kGrain / (width > 0 ? width : 1) : 1; }

}  // namespace stapes::cpu::STAPES_ISA_NAME
