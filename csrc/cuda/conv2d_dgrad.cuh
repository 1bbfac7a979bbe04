// The gradient of a convolution's input as an implicit GEMM, from whatever can be read as dy: conv2d_dgrad.cu says how.
#pragma once

#include <numeric>

#include "cuda/conv2d_epilogue.cuh"
#include "cuda/conv2d_host.cuh"

namespace stapes::cuda {

// One axis of the classes.
struct ClassAxis {
  unsigned classes, stride, dilation, pad;
  int kernel, step;        // the places of a class are `step` apart
  unsigned step_outputs;   // which is so many of p
  unsigned outputs, size;  // P; H

  struct Class {
    int first, places;  // of the filter
    WindowAxis axis;    // dy, as the class's pixels see it
  };
  __device__ __forceinline__ Class at(unsigned remainder) const {
    const unsigned by = dilation % stride, wanted = (remainder + pad) % stride;
    unsigned found = 0;
    int first = 0;
    for (; first < min(step, kernel) && found != wanted; ++first)
      found = found >= stride - by ? found - (stride - by) : found + by;
    const int places = first < min(step, kernel) ? (kernel - first - 1) / step + 1 : 0;
    const std::int64_t origin =
        (static_cast<std::int64_t>(remainder) + pad - static_cast<std::int64_t>(first) * dilation) / stride;
    return {first, places, {outputs, 1, 0u - step_outputs, static_cast<unsigned>(origin), places}};
  }
};

// The pixels of a class; those of smaller classes beyond the image are none.
struct ClassPixels {
  PixelRow pixels;
  unsigned H, W, stride_h, stride_w, first_h, first_w;

  __device__ __forceinline__ std::int64_t index(int m) const {
    if (!pixels.holds(m)) return -1;
    const Digits d = pixels.pixel(m);
    const unsigned h = static_cast<unsigned>(d.middle) * stride_h + first_h;
    const unsigned w = static_cast<unsigned>(d.low) * stride_w + first_w;
    return h < H && w < W ? (static_cast<std::int64_t>(d.high) * H + h) * W + w : -1;
  }
};

// SourceA, SourceB: dy as Patches see it, and w as FiltersByChannel.
template <class M, class SourceA, class SourceB>
struct DgradProblem {
  using Math = M;
  using T = typename Math::Element;
  using A = SourceA;
  using B = SourceB;
  using Epilogue = StoreImages<T, ClassPixels>;

  A a;
  B b;  // down, right: from a place of the filter to the next
  Epilogue epilogue;
  ClassAxis h, w;
  BlockGrid blocks;

  template <class Tile>
  __device__ __forceinline__ Part<A, B, Epilogue> part(unsigned block) const {
    const BlockGrid::Place at = blocks.place<Tile>(block);
    const unsigned copy = static_cast<unsigned>(at.copy), row = copy / w.classes, remainder_w = copy - row * w.classes;
    const unsigned group = row / h.classes, remainder_h = row - group * h.classes;
    const ClassAxis::Class down = h.at(remainder_h), right = w.at(remainder_w);
    const int filters = b.taps.low.divisor();
    Part<A, B, Epilogue> p{a, b, epilogue, at.m, at.n, 0, down.places * right.places * filters};

    p.a.images.skip(static_cast<std::int64_t>(group) * filters);
    p.a.images.h = down.axis;
    p.a.images.w = right.axis;
    p.a.taps.middle = p.b.taps.middle = max(right.places, 1);
    p.b.places = down.places;
    p.b.w += static_cast<std::int64_t>(group) * filters * b.filter + down.first * b.down + right.first * b.right;
    p.b.down *= h.step;
    p.b.right *= w.step;
    p.epilogue.y += static_cast<std::int64_t>(group) * b.channels;
    if (epilogue.b != nullptr) p.epilogue.b += group * static_cast<unsigned>(b.channels);
    p.epilogue.pixels.first_h = remainder_h;
    p.epilogue.pixels.first_w = remainder_w;
    return p;
  }
};

inline ClassAxis class_axis(std::int64_t size, std::int64_t outputs, std::int64_t kernel, std::int64_t stride,
                            std::int64_t dilation, std::int64_t pad) {
  if (kernel == 1) dilation = 1;
  // Only p = 0 is there: with any stride above all coordinates it is met where it should be, and nothing else is.
  if (outputs == 1) stride = std::min<std::int64_t>(stride, INT32_MAX);
  const std::int64_t common = std::gcd(stride, dilation);
  return {static_cast<unsigned>(std::min(stride, size)),
          static_cast<unsigned>(stride),
          static_cast<unsigned>(dilation),
          static_cast<unsigned>(pad),
          static_cast<int>(kernel),
          static_cast<int>(stride / common),
          static_cast<unsigned>(dilation / common),
          static_cast<unsigned>(outputs),
          static_cast<unsigned>(size)};
}

// set_images(images, n): the dy of images n and up. Whole: the tiles for sources of whole pieces.
template <class Math, class A, class B, class Whole = typename ImageTiles<Math>::List, class F>
void run_dgrad(const Conv2dDgradArgs& args, const Conv2dShape& s, const F& set_images, Stream stream) {
  using Problem = DgradProblem<Math, A, B>;
  using T = typename Math::Element;
  const Window2d& w = s.window;
  const std::int64_t C = s.C / s.groups, K = s.K / s.groups, at_once = images_at_once(s);
  const ClassAxis down = class_axis(s.H, w.P, w.kernel_h, w.stride_h, w.dil_h, w.pad_top);
  const ClassAxis right = class_axis(s.W, w.Q, w.kernel_w, w.stride_w, w.dil_w, w.pad_left);
  const std::int64_t rows = ceil_div<std::int64_t>(s.H, down.classes),
                     columns = ceil_div<std::int64_t>(s.W, right.classes);
  const std::int64_t copies = s.groups * down.classes * right.classes;
  for (std::int64_t n = 0; n < s.N; n += at_once) {
    const std::int64_t N = std::min(at_once, s.N - n), pixels = N * rows * columns;
    T* const dx = static_cast<T*>(args.dx) + n * s.H * s.W * s.C;
    Problem problem{};
    set_images(problem.a.images, n);
    problem.a.pixels = PixelRow(N, rows, columns);
    problem.a.taps.low = problem.b.taps.low = Division(K);
    problem.b.w = static_cast<const T*>(args.w);
    problem.b.channels = static_cast<int>(C);
    problem.b.filter = w.kernel_h * w.kernel_w * C;
    problem.b.down = w.kernel_w * C;
    problem.b.right = C;
    problem.h = down;
    problem.w = right;
    problem.epilogue = {dx,
                        static_cast<const float*>(args.b),
                        s.C,
                        static_cast<int>(C),
                        false,
                        C % 2 == 0 && is_aligned(dx, 2 * sizeof(T)),
                        {problem.a.pixels, down.size, right.size, down.stride, right.stride, 0, 0}};
    const auto launch_tile = [&](auto tile) { launch_gemm<decltype(tile)>(problem, pixels, C, copies, stream); };
    if constexpr (Problem::A::kWhole) {
      with_tile(Whole{}, pixels, C, copies, kEnoughBlocks, launch_tile);
    } else {
      launch_tile(SmallFew{});
    }
  }
}

}  // namespace stapes::cuda
