// Indices of convolutions: division by numbers known to the host, counting in three digits, and where the pixels of
// one image lie that another's window covers. Pixels and depths of one launch fit 31 bits, offsets of elements 64.
#pragma once

#include "cuda/runtime.cuh"
#include "ops/kernels.hpp"

namespace stapes::cuda {

// n / divisor for 0 <= n < 2^31 by a multiplication (Granlund and Montgomery, "Division by invariant integers using
// multiplication", 1994).
class Division {
 public:
  Division() = default;
  explicit Division(std::int64_t divisor) : divisor_(static_cast<unsigned>(divisor)) {
    while ((std::uint64_t{1} << shift_) < divisor_) ++shift_;
    const std::uint64_t rest = (std::uint64_t{1} << shift_) - divisor_;
    multiplier_ = static_cast<unsigned>((rest << 32) / divisor_ + 1);
  }
  __device__ __forceinline__ int divisor() const { return static_cast<int>(divisor_); }
  __device__ __forceinline__ int quotient(int n) const {
    const unsigned u = static_cast<unsigned>(n);
    return static_cast<int>((__umulhi(u, multiplier_) + u) >> shift_);
  }

 private:
  unsigned divisor_ = 1, multiplier_ = 1, shift_ = 0;
};

// A number in three digits: (r, s, channel) of a place in a filter, or (n, p, q) of a pixel.
struct Digits {
  int high, middle, low;
};

// Counts with `low` and `middle` as the sizes of the last two digits; the first has no end.
struct Odometer {
  int middle;
  Division low;

  __device__ __forceinline__ Digits digits(int n) const {
    const int rest = low.quotient(n), high = rest / middle;
    return {high, rest - high * middle, n - rest * low.divisor()};
  }
  __device__ __forceinline__ void advance(Digits& d, const Digits& by) const {
    d.low += by.low;
    d.middle += by.middle;
    d.high += by.high;
    if (d.low >= low.divisor()) {
      d.low -= low.divisor();
      ++d.middle;
    }
    if (d.middle >= middle) {
      d.middle -= middle;
      ++d.high;
    }
  }
};

// The pixels of N images of P x Q in a row.
struct PixelRow {
  Division image, row;  // P * Q, Q
  int count;            // N * P * Q

  PixelRow() = default;
  PixelRow(std::int64_t N, std::int64_t P, std::int64_t Q) : image(P * Q), row(Q), count(static_cast<int>(N * P * Q)) {}

  __device__ __forceinline__ bool holds(int m) const { return m < count; }
  __device__ __forceinline__ Digits pixel(int m) const {
    const int n = image.quotient(m), in_image = m - n * image.divisor(), p = row.quotient(in_image);
    return {n, p, in_image - p * row.divisor()};
  }
};

// One axis of a window: place r of the window of output p is coordinate p * stride + r * step + origin of the input,
// which has `size` of them. Computed modulo 2^32: what is true of it lies between -2^31 and 2^31 (check_sizes).
struct WindowAxis {
  unsigned size, stride, step, origin;
  int places;

  // A corner none of whose places lies inside, whichever way they step.
  __device__ __forceinline__ unsigned outside() const { return step >> 31 ? ~0u : 1u << 31; }
};

// Images of one tensor, as windows over them see them.
template <class T>
struct Images {
  using Element = T;
  const T* data;  // at the group's first channel
  WindowAxis h, w;
  std::int64_t channels;  // from a pixel to the next

  struct Corner {  // of a window
    std::int64_t offset;
    unsigned h, w;
  };
  __device__ __forceinline__ Corner corner(const Digits& pixel) const {
    const unsigned y = static_cast<unsigned>(pixel.middle) * h.stride + h.origin;
    const unsigned x = static_cast<unsigned>(pixel.low) * w.stride + w.origin;
    const std::int64_t row = static_cast<std::int64_t>(pixel.high) * h.size + static_cast<int>(y);
    return {(row * w.size + static_cast<int>(x)) * channels, y, x};
  }
  __device__ __forceinline__ Corner outside() const { return {0, h.outside(), w.outside()}; }
  __device__ __forceinline__ void skip(std::int64_t elements) { data += elements; }

  // The channel tap.low of place (tap.high, tap.middle); null where that is outside of the image or of the window.
  __device__ __forceinline__ const T* at(const Corner& c, const Digits& tap) const {
    const unsigned down = static_cast<unsigned>(tap.high) * h.step, right = static_cast<unsigned>(tap.middle) * w.step;
    if (c.h + down >= h.size || c.w + right >= w.size || tap.high >= h.places) return nullptr;
    const std::int64_t offset = static_cast<std::int64_t>(static_cast<int>(down)) * w.size + static_cast<int>(right);
    return data + c.offset + offset * channels + tap.low;
  }
};

inline WindowAxis forward_axis(std::int64_t size, std::int64_t stride, std::int64_t dilation, std::int64_t pad,
                               std::int64_t kernel) {
  return {static_cast<unsigned>(size), static_cast<unsigned>(stride), static_cast<unsigned>(dilation),
          static_cast<unsigned>(-pad), static_cast<int>(kernel)};
}

}  // namespace stapes::cuda
