// The gradient of a convolution's weights as an implicit GEMM, from whatever can be read as dy: conv2d_wgrad.cu says
// how.
#pragma once

#include "cuda/conv2d_epilogue.cuh"
#include "cuda/conv2d_host.cuh"
#include "cuda/ordered_sum.cuh"

namespace stapes::cuda {

// How the pixels are dealt out.
struct Splits {
  std::int64_t pixels;          // of a split: a multiple of each type's kStageDepth
  std::int64_t launches, each;  // launches, for each of which images_at_once images; splits of a launch

  std::int64_t count() const { return launches * each; }
};

// Filled with the tiles that whole pieces take, whatever the source, so that the sums do not depend on addresses.
template <class List>
Splits splits_of(const Conv2dShape& s) {
  constexpr std::int64_t kTargetBlocks = 512, kLeastPixels = 256, kMultiple = kStageDepth<half>;
  const std::int64_t K = s.K / s.groups, places = s.window.kernel_h * s.window.kernel_w * s.C / s.groups;
  std::int64_t blocks = 0;
  with_tile(List{}, K, places, 1, 1, [&]<class Tile>(Tile) {
    blocks = s.groups * ceil_div<std::int64_t>(K, Tile::kM) * ceil_div<std::int64_t>(places, Tile::kN);
  });
  const std::int64_t images = std::min(s.N, images_at_once(s)), pixels = images * s.window.P * s.window.Q;
  const std::int64_t wanted =
      std::min(std::max<std::int64_t>(kTargetBlocks / blocks, 1), ceil_div(pixels, kLeastPixels));
  const std::int64_t size = ceil_div(ceil_div(pixels, wanted), kMultiple) * kMultiple;
  return {size, ceil_div(s.N, images), ceil_div(pixels, size)};
}

// SourceA, SourceB: dy as Gradient sees it, and x as PatchesByPlace.
template <class M, class SourceA, class SourceB>
struct WgradProblem {
  using Math = M;
  using A = SourceA;
  using B = SourceB;
  using Epilogue = StoreImages<float, EveryPixel>;

  A a;
  B b;
  Epilogue epilogue;
  std::int64_t partial;  // elements: of a whole dw
  int splits, split_pixels;
  BlockGrid blocks;

  template <class Tile>
  __device__ __forceinline__ Part<A, B, Epilogue> part(unsigned block) const {
    const BlockGrid::Place at = blocks.place<Tile>(block);
    const int group = at.copy / splits, split = at.copy - group * splits, begin = split * split_pixels;
    Part<A, B, Epilogue> p{a, b, epilogue, at.m, at.n, begin, min(begin + split_pixels, a.pixels)};
    const int first = group * a.lines;
    p.a.skip(first);
    p.b.images.data += static_cast<std::int64_t>(group) * b.taps.low.divisor();
    p.epilogue.y += split * partial + static_cast<std::int64_t>(first) * epilogue.channels;
    return p;
  }
};

// Partial sums to `to`. set_gradient(a, n): the dy of images n and up, but for a.lines and a.pixels.
template <class Math, class A, class B, class Whole, class F>
void run_splits(const Conv2dWgradArgs& args, const Conv2dShape& s, const Splits& splits, float* to,
                const F& set_gradient, Stream stream) {
  using Problem = WgradProblem<Math, A, B>;
  using T = typename Math::Element;
  const Window2d& w = s.window;
  const std::int64_t C = s.C / s.groups, K = s.K / s.groups, places = w.kernel_h * w.kernel_w * C;
  const std::int64_t dw_elements = s.K * places, at_once = images_at_once(s);
  for (std::int64_t i = 0; i < splits.launches; ++i) {
    const std::int64_t n = i * at_once, N = std::min(at_once, s.N - n), pixels = N * w.P * w.Q;
    Problem problem{};
    set_gradient(problem.a, n);
    problem.a.lines = static_cast<int>(K);
    problem.a.pixels = static_cast<int>(pixels);
    problem.b.images = {static_cast<const T*>(args.x) + n * s.H * s.W * s.C,
                        forward_axis(s.H, w.stride_h, w.dil_h, w.pad_top, w.kernel_h),
                        forward_axis(s.W, w.stride_w, w.dil_w, w.pad_left, w.kernel_w), s.C};
    problem.b.taps = {static_cast<int>(w.kernel_w), Division(C)};
    problem.b.pixels = {static_cast<int>(w.P), Division(w.Q)};
    problem.b.N = static_cast<int>(N);
    problem.epilogue = {to + i * splits.each * dw_elements,
                        nullptr,
                        places,
                        static_cast<int>(places),
                        false,
                        places % 2 == 0 && is_aligned(to, 8),
                        {static_cast<int>(K)}};
    problem.partial = dw_elements;
    problem.splits = static_cast<int>(splits.each);
    problem.split_pixels = static_cast<int>(splits.pixels);
    const auto launch_tile = [&](auto tile) {
      launch_gemm<decltype(tile)>(problem, K, places, s.groups * splits.each, stream);
    };
    if constexpr (Problem::A::kWhole) {
      with_tile(Whole{}, K, places, 1, 1, launch_tile);
    } else {
      launch_tile(Smallest{});
    }
  }
}

// All of it, dw included. Whole: the tiles for sources of whole pieces.
template <class Math, class A, class B, class Whole = typename FilterTiles<Math>::List, class F>
void run_wgrad(const Conv2dWgradArgs& args, const Conv2dShape& s, const F& set_gradient, Stream stream) {
  const std::int64_t dw_elements = s.K * s.window.kernel_h * s.window.kernel_w * (s.C / s.groups);
  const auto bytes = [&](std::int64_t count) { return sizeof(float) * static_cast<std::size_t>(count * dw_elements); };
  if (s.N == 0) return zero(args.dw, bytes(1), stream);
  const Splits splits = splits_of<Whole>(s);
  const bool several = splits.count() > 1;
  const Workspace partials(several ? bytes(splits.count()) : 0, stream);
  float* const dw = static_cast<float*>(args.dw);
  float* const to = several ? partials.as<float>() : dw;
  run_splits<Math, A, B, Whole>(args, s, splits, to, set_gradient, stream);
  if (several) ordered_sum(to, static_cast<int>(splits.count()), dw_elements, dw_elements, dw, stream);
}

}  // namespace stapes::cuda
