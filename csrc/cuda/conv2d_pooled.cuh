// Sources of the implicit GEMMs (conv2d_sources.cuh) that read the gradient of max_pool2d(max(0, z)) and its argmax as
// the gradient of z: place (p, q) of z has the window's dy where argmax names it, else zero. z's gradient is made as it
// goes to shared memory, and never written elsewhere. Windows do not overlap; z ends where the last whole one does.
#pragma once

#include "cuda/conv2d_sources.cuh"

namespace stapes::cuda {

// A place of z: where its window's dy and argmax are, from some channel on. dy is null outside of z.
template <class T>
struct Spot {
  const T* dy = nullptr;
  const std::uint8_t* argmax = nullptr;
  unsigned place = 0;  // of the window
};

template <class T>
struct Pooled {
  const T* dy;
  const std::uint8_t* argmax;
  std::int64_t channels;  // from a window to the next: K
  Division pool_h, pool_w;
  int rows, cols;  // windows of an image

  __device__ __forceinline__ void skip(std::int64_t elements) {
    dy += elements;
    argmax += elements;
  }
  __device__ __forceinline__ Spot<T> spot(int n, int p, int q, int channel) const {
    const int i = pool_h.quotient(p), j = pool_w.quotient(q);
    const int place = (p - i * pool_h.divisor()) * pool_w.divisor() + q - j * pool_w.divisor();
    const std::int64_t at = ((static_cast<std::int64_t>(n) * rows + i) * cols + j) * channels + channel;
    return {dy + at, argmax + at, static_cast<unsigned>(place)};
  }
};

// z's gradient as windows over it see it; in place of Images.
template <class T>
struct PooledImages {
  Pooled<T> pooled;
  WindowAxis h, w;

  struct Corner {
    int n;
    unsigned h, w;
  };
  __device__ __forceinline__ Corner corner(const Digits& pixel) const {
    return {pixel.high, static_cast<unsigned>(pixel.middle) * h.stride + h.origin,
            static_cast<unsigned>(pixel.low) * w.stride + w.origin};
  }
  __device__ __forceinline__ Corner outside() const { return {0, h.outside(), w.outside()}; }
  __device__ __forceinline__ void skip(std::int64_t elements) { pooled.skip(elements); }

  __device__ __forceinline__ Spot<T> at(const Corner& c, const Digits& tap) const {
    const unsigned p = c.h + static_cast<unsigned>(tap.high) * h.step;
    const unsigned q = c.w + static_cast<unsigned>(tap.middle) * w.step;
    if (p >= h.size || q >= w.size || tap.high >= h.places) return {};
    return pooled.spot(c.n, static_cast<int>(p), static_cast<int>(q), tap.low);
  }
};

// A of dgrad.
template <class T>
using PooledPatches = Patches<T, PixelRow, PooledImages<T>>;

// A of wgrad, in place of Gradient: depth is the pixel (n, p, q) of z.
template <class T>
struct PooledGradient {
  using Element = T;
  static constexpr Along kAlong = Along::kLines;
  using Line = int;
  using Depth = Digits;
  using Step = Digits;

  Pooled<T> pooled;
  Odometer map;          // z's size
  int lines, pixels, N;  // pixels: of all N images

  __device__ __forceinline__ void skip(std::int64_t elements) { pooled.skip(elements); }
  __device__ __forceinline__ Line line(int i) const { return i; }
  __device__ __forceinline__ Depth depth(int k) const { return map.digits(k); }
  __device__ __forceinline__ Step step(int by) const { return map.digits(by); }
  __device__ __forceinline__ void advance(Depth& d, const Step& by) const { map.advance(d, by); }
  __device__ __forceinline__ void next(Line& line) const { ++line; }
  __device__ __forceinline__ Spot<T> at(Line line, const Depth& d) const {
    return line < lines && d.high < N ? pooled.spot(d.high, d.middle, d.low, line) : Spot<T>{};
  }
};

// ---- sources, in place of Pieces and Elements

// What is read of a piece; whole() makes the piece of it, after the arithmetic that hides the loads' latency.
template <class T>
struct PooledPiece {
  uint4 dy;
  std::uint32_t argmax[4 / sizeof(T)];  // a byte for each element
  std::uint32_t place;                  // of all of them, as argmax would have it
};

template <class Tensor>
struct PooledPieces : Tensor {
  using T = typename Tensor::Element;
  static constexpr bool kWhole = true, kAsync = false;
  using Raw = PooledPiece<T>;

  __device__ __forceinline__ Raw load(const typename Tensor::Line& line, const typename Tensor::Depth& depth) const {
    const Spot<T> spot = this->at(line, depth);
    Raw raw{};
    raw.place = spot.place;
    if (spot.dy == nullptr) return raw;
    raw.dy = load_vec<uint4>(spot.dy);
    if constexpr (sizeof(T) == 4) {
      raw.argmax[0] = load_vec<std::uint32_t>(spot.argmax);
    } else {
      const uint2 two = load_vec<uint2>(spot.argmax);
      raw.argmax[0] = two.x;
      raw.argmax[1] = two.y;
    }
    return raw;
  }
  __device__ __forceinline__ static uint4 whole(const Raw& raw) {
    const auto chosen = [&](int i) { return (raw.argmax[i / 4] >> (8 * (i % 4)) & 0xffu) == raw.place; };
    const auto word = [&](std::uint32_t v, int i) {  // of the piece
      if constexpr (sizeof(T) == 4) return chosen(i) ? v : 0u;
      return v & ((chosen(2 * i) ? 0xffffu : 0u) | (chosen(2 * i + 1) ? 0xffff0000u : 0u));
    };
    return make_uint4(word(raw.dy.x, 0), word(raw.dy.y, 1), word(raw.dy.z, 2), word(raw.dy.w, 3));
  }
};

template <class Tensor>
struct PooledElements : Tensor {
  using T = typename Tensor::Element;
  static constexpr bool kWhole = false, kAsync = false;
  using Raw = uint4;

  __device__ __forceinline__ Raw load(typename Tensor::Line line, typename Tensor::Depth depth) const {
    constexpr int kEach = 4 / static_cast<int>(sizeof(T));  // elements of a word
    std::uint32_t words[4] = {};
#pragma unroll
    for (int i = 0; i < kVec<T>; ++i) {
      const Spot<T> spot = this->at(line, depth);
      if (spot.dy != nullptr && *spot.argmax == spot.place)
        words[i / kEach] |= bits(*spot.dy) << (32 / kEach * (i % kEach));
      if constexpr (Tensor::kAlong == Along::kDepth) {
        this->next(depth);
      } else {
        this->next(line);
      }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
  }
  __device__ __forceinline__ static uint4 whole(const Raw& raw) { return raw; }

 private:
  __device__ __forceinline__ static std::uint32_t bits(const T& v) {
    if constexpr (sizeof(T) == 4) return __float_as_uint(v);
    return reinterpret_cast<const unsigned short&>(v);
  }
};

}  // namespace stapes::cuda
