// Where the operands of the implicit GEMMs (conv2d_tile.cuh) come from. A source knows a tensor; a loader
// (conv2d_load.cuh) asks it for pieces of 16 bytes. What a source has:
//
//   using Element;  static constexpr Along kAlong;      // which index its neighbours in memory differ in
//   Line line(int i), Depth depth(int k), Step step(int by)   // a line of the operand, a depth, a distance in depth
//   void advance(Depth&, const Step&)
//   static constexpr bool kAsync;
//   kAsync:   void copy(Element* to, const Line&, const Depth&)    starts cp.async of the piece to shared memory
//   !kAsync:  using Raw;  Raw load(const Line&, const Depth&)      loads the piece into registers
//             static uint4 whole(const Raw&)                       makes what the loader stores
//
// A piece starts at the line and the depth and runs along kAlong; zeros stand for what is outside of the operand.
// line(i) may be asked for any i below the operand's lines rounded up to a tile, depth likewise.
//
// The tensors below have `const Element* at(line, depth)` (null: zero) and next(Line&) or next(Depth&) along kAlong,
// of which Pieces<> (whole pieces: channels of a group a multiple of the piece, base addresses of 16 bytes) and
// Elements<> (any) make sources. Sources of another kind, of a pooled gradient, are in conv2d_pooled.cuh.
#pragma once

#include "cuda/conv2d_index.cuh"
#include "cuda/conv2d_tile.cuh"

namespace stapes::cuda {

// A of fwd (x) and dgrad (dy): a line is the window of an output pixel, depth (r, s, channel).
// `Pixels` (as PixelRow) says which pixel a line is, `View` (as Images) what is seen through a window.
template <class T, class Pixels = PixelRow, class View = Images<T>>
struct Patches {
  using Element = T;
  static constexpr Along kAlong = Along::kDepth;
  using Line = typename View::Corner;
  using Depth = Digits;
  using Step = Digits;

  View images;
  Pixels pixels;
  Odometer taps;

  __device__ __forceinline__ Line line(int i) const {
    return pixels.holds(i) ? images.corner(pixels.pixel(i)) : images.outside();
  }
  __device__ __forceinline__ Depth depth(int k) const { return taps.digits(k); }
  __device__ __forceinline__ Step step(int by) const { return taps.digits(by); }
  __device__ __forceinline__ void advance(Depth& d, const Step& by) const { taps.advance(d, by); }
  __device__ __forceinline__ void next(Depth& d) const { taps.advance(d, {0, 0, 1}); }
  __device__ __forceinline__ auto at(const Line& line, const Depth& d) const { return images.at(line, d); }
};

// B of fwd: w as (filters, depth).
template <class T>
struct Filters {
  using Element = T;
  static constexpr Along kAlong = Along::kDepth;
  using Line = const T*;
  using Depth = int;
  using Step = int;

  const T* w;  // at the group's first filter
  int filters, length;

  __device__ __forceinline__ Line line(int i) const {
    return i < filters ? w + static_cast<std::int64_t>(i) * length : nullptr;
  }
  __device__ __forceinline__ Depth depth(int k) const { return k; }
  __device__ __forceinline__ Step step(int by) const { return by; }
  __device__ __forceinline__ void advance(Depth& d, Step by) const { d += by; }
  __device__ __forceinline__ void next(Depth& d) const { ++d; }
  __device__ __forceinline__ const T* at(Line line, Depth d) const {
    return line != nullptr && d < length ? line + d : nullptr;
  }
};

// B of dgrad: a line is a channel c of x, depth (i, j, filter) over the places of the filter that a class of pixels
// has (conv2d_dgrad.cu).
template <class T>
struct FiltersByChannel {
  using Element = T;
  static constexpr Along kAlong = Along::kLines;
  using Line = int;
  using Depth = Digits;
  using Step = Digits;

  const T* w;  // at the group's first filter and the class's first place
  int channels, places;
  std::int64_t filter, down, right;  // distances in elements, from a place to the class's next
  Odometer taps;

  __device__ __forceinline__ Line line(int i) const { return i; }
  __device__ __forceinline__ Depth depth(int k) const { return taps.digits(k); }
  __device__ __forceinline__ Step step(int by) const { return taps.digits(by); }
  __device__ __forceinline__ void advance(Depth& d, const Step& by) const { taps.advance(d, by); }
  __device__ __forceinline__ void next(Line& line) const { ++line; }
  __device__ __forceinline__ const T* at(Line line, const Depth& d) const {
    return line < channels && d.high < places ? w + d.low * filter + d.high * down + d.middle * right + line : nullptr;
  }
};

// A of wgrad: dy as (pixels, K): a line is a k of the group, depth the pixel.
template <class T>
struct Gradient {
  using Element = T;
  static constexpr Along kAlong = Along::kLines;
  using Line = int;
  using Depth = int;
  using Step = int;

  const T* dy;  // at the group's first k
  int lines, pixels;
  std::int64_t pixel;  // distance from one to the next: K

  __device__ __forceinline__ Line line(int i) const { return i; }
  __device__ __forceinline__ Depth depth(int k) const { return k; }
  __device__ __forceinline__ Step step(int by) const { return by; }
  __device__ __forceinline__ void advance(Depth& d, Step by) const { d += by; }
  __device__ __forceinline__ void next(Line& line) const { ++line; }
  __device__ __forceinline__ void skip(std::int64_t elements) { dy += elements; }
  __device__ __forceinline__ const T* at(Line line, Depth d) const {
    return line < lines && d < pixels ? dy + d * pixel + line : nullptr;
  }
};

// B of wgrad: a line is (r, s, channel), depth the pixel (n, p, q) of dy.
template <class T>
struct PatchesByPlace {
  using Element = T;
  static constexpr Along kAlong = Along::kLines;
  using Line = Digits;
  using Depth = Digits;
  using Step = Digits;

  Images<T> images;
  Odometer taps, pixels;
  int N;

  __device__ __forceinline__ Line line(int i) const { return taps.digits(i); }
  __device__ __forceinline__ Depth depth(int k) const { return pixels.digits(k); }
  __device__ __forceinline__ Step step(int by) const { return pixels.digits(by); }
  __device__ __forceinline__ void advance(Depth& d, const Step& by) const { pixels.advance(d, by); }
  __device__ __forceinline__ void next(Line& line) const { taps.advance(line, {0, 0, 1}); }
  __device__ __forceinline__ const T* at(const Line& line, const Depth& d) const {
    return d.high < N ? images.at(images.corner(d), line) : nullptr;
  }
};

// ---- sources

template <class Tensor>
struct Pieces : Tensor {
  static constexpr bool kWhole = true, kAsync = true;

  __device__ __forceinline__ void copy(typename Tensor::Element* to, const typename Tensor::Line& line,
                                       const typename Tensor::Depth& depth) const {
    const auto* p = this->at(line, depth);
    cp_async16(to, p, p != nullptr);
  }
};

template <class Tensor>
struct Elements : Tensor {
  using T = typename Tensor::Element;
  static constexpr bool kWhole = false, kAsync = sizeof(T) == 4;  // cp.async copies 4 bytes at least
  using Raw = uint4;

  __device__ __forceinline__ void copy(T* to, typename Tensor::Line line, typename Tensor::Depth depth) const {
    each(line, depth, [&](int i, const T* p) { cp_async4(to + i, p, p != nullptr); });
  }
  __device__ __forceinline__ uint4 load(typename Tensor::Line line, typename Tensor::Depth depth) const {
    static_assert(sizeof(T) == 2);
    std::uint32_t words[4] = {};
    each(line, depth, [&](int i, const T* p) {
      const unsigned short* bits = reinterpret_cast<const unsigned short*>(p);
      words[i / 2] |= (p != nullptr ? static_cast<std::uint32_t>(*bits) : 0u) << (16 * (i % 2));
    });
    return make_uint4(words[0], words[1], words[2], words[3]);
  }
  __device__ __forceinline__ static uint4 whole(const Raw& raw) { return raw; }

 private:
  template <class F>
  __device__ __forceinline__ void each(typename Tensor::Line& line, typename Tensor::Depth& depth, const F& f) const {
#pragma unroll
    for (int i = 0; i < kVec<T>; ++i) {
      f(i, this->at(line, depth));
      if constexpr (Tensor::kAlong == Along::kDepth) {
        this->next(depth);
      } else {
        this->next(line);
      }
    }
  }
};

}  // namespace stapes::cuda
