// dw[k,r,s,c] = sum over n,p,q of dy[n,p,q,k] * x[n, p*stride_h + r*dil_h - pad_top, q*stride_w + s*dil_w - pad_left,
// c] Layout: dy (N,P,Q,K), x (N,H,W,C) float32, float16 or bfloat16, dw (K,R,S,C/groups) float32. Any sizes and
// addresses;
//   pieces of 16 bytes are read where K/groups and C/groups and the addresses of dy and x are multiples of that.
// Work: implicit GEMM (conv2d_gemm.cuh) for each group: M = K/groups, N = R*S*C/groups, depth the N*P*Q pixels, in
//   as many splits as make about kTargetBlocks blocks: a number that follows from the shape alone. A split sums the
//   pixels of its own into a partial dw, ordered_sum adds these. One split writes dw itself.
// Launch bounds, registers: the table of tiles in conv2d_host.cuh.
// Numerics: float32 sums, a split's pixels in order, then the splits in the order of ordered_sum. The same bits for
//   every tile and alignment, and on every device of one architecture. Overwrites.
// Measured: not measured.
#include "cuda/conv2d_epilogue.cuh"
#include "cuda/conv2d_host.cuh"
#include "cuda/depthwise.cuh"
#include "cuda/first_layer.cuh"
#include "cuda/ordered_sum.cuh"

namespace stapes::cuda {
namespace {

// How the pixels are dealt out.
struct Splits {
  std::int64_t pixels;          // of a split: a multiple of each type's kStageDepth
  std::int64_t launches, each;  // launches, for each of which images_at_once images; splits of a launch

  std::int64_t count() const { return launches * each; }
};

Splits splits_of(const Conv2dShape& s) {
  constexpr std::int64_t kTargetBlocks = 512, kLeastPixels = 256, kMultiple = kStageDepth<half>;
  const auto tiles = [](std::int64_t n) { return ceil_div<std::int64_t>(n, n > 64 ? 128 : 64); };
  const std::int64_t blocks =
      s.groups * tiles(s.K / s.groups) * tiles(s.window.kernel_h * s.window.kernel_w * s.C / s.groups);
  const std::int64_t images = std::min(s.N, images_at_once(s)), pixels = images * s.window.P * s.window.Q;
  const std::int64_t wanted = std::min(ceil_div(kTargetBlocks, blocks), ceil_div(pixels, kLeastPixels));
  const std::int64_t size = ceil_div(ceil_div(pixels, wanted), kMultiple) * kMultiple;
  return {size, ceil_div(s.N, images), ceil_div(pixels, size)};
}

template <class M, template <class> class Source>
struct WgradProblem {
  using Math = M;
  using T = typename Math::Element;
  using A = Source<Gradient<T>>;
  using B = Source<PatchesByPlace<T>>;
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
    p.a.dy += first;
    p.b.images.data += static_cast<std::int64_t>(group) * b.taps.low.divisor();
    p.epilogue.y += split * partial + static_cast<std::int64_t>(first) * epilogue.channels;
    return p;
  }
};

template <class Math, template <class> class Source>
void run(const Conv2dWgradArgs& args, const Conv2dShape& s, const Splits& splits, float* to, Stream stream) {
  using Problem = WgradProblem<Math, Source>;
  using T = typename Math::Element;
  const Window2d& w = s.window;
  const std::int64_t C = s.C / s.groups, K = s.K / s.groups, places = w.kernel_h * w.kernel_w * C;
  const std::int64_t dw_elements = s.K * places, at_once = images_at_once(s);
  for (std::int64_t i = 0; i < splits.launches; ++i) {
    const std::int64_t n = i * at_once, N = std::min(at_once, s.N - n), pixels = N * w.P * w.Q;
    Problem problem{};
    problem.a.dy = static_cast<const T*>(args.dy) + n * w.P * w.Q * s.K;
    problem.a.lines = static_cast<int>(K);
    problem.a.pixels = static_cast<int>(pixels);
    problem.a.pixel = s.K;
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
      with_tile(typename FilterTiles<Math>::List{}, K, places, 1, 1, launch_tile);
    } else {
      launch_tile(Smallest{});
    }
  }
}

}  // namespace

void conv2d_wgrad(const Conv2dWgradArgs& args, Stream stream) {
  if (depthwise_wgrad(args, stream) || first_layer_wgrad(args, stream)) return;
  const Conv2dShape s = flatten_pointwise(args.shape);
  check_sizes("conv2d_wgrad", s);
  const std::int64_t dw_elements = s.K * s.window.kernel_h * s.window.kernel_w * (s.C / s.groups);
  const auto bytes = [&](std::int64_t count) { return sizeof(float) * static_cast<std::size_t>(count * dw_elements); };
  if (s.N == 0) return zero(args.dw, bytes(1), stream);
  const Splits splits = splits_of(s);
  const bool several = splits.count() > 1;
  const Workspace partials(several ? bytes(splits.count()) : 0, stream);
  float* const dw = static_cast<float*>(args.dw);
  float* const to = several ? partials.as<float>() : dw;
  with_math("conv2d_wgrad", args.dtype, args.precision, [&]<class Math>(Use<Math>) {
    constexpr std::size_t kSize = sizeof(typename Math::Element);
    if (in_pieces(kSize, s.K / s.groups, args.dy) && in_pieces(kSize, s.C / s.groups, args.x)) {
      run<Math, Pieces>(args, s, splits, to, stream);
    } else {
      run<Math, Elements>(args, s, splits, to, stream);
    }
  });
  if (several) ordered_sum(to, static_cast<int>(splits.count()), dw_elements, dw_elements, dw, stream);
}

}  // namespace stapes::cuda
