// y[n,p,q,k] = act(b[k] + sum over r,s,c of x[n, p*stride_h + r*dil_h - pad_top, q*stride_w + s*dil_w - pad_left, c] *
// w[k,r,s,c]), x being 0 outside of the image
// Layout: x (N,H,W,C), w (K,R,S,C/groups), b (K,) float32, y (N,P,Q,K); x, w, y float32, float16 or bfloat16. Any sizes
//   and addresses; pieces of 16 bytes are read where C/groups and the addresses of x and w are multiples of that.
// Work: implicit GEMM (conv2d_gemm.cuh) for each group: M = N*P*Q pixels, N = K/groups, depth R*S*C/groups. The patches
//   of x are gathered on the way to shared memory. Where that makes few tiles of much depth, the depth is split: each
//   split's sums go to scratch memory, and ordered_sum finishes them. Also conv_transpose2d's dgrad and, as 1x1,
//   linear_fwd.
// Launch bounds, registers: the table of tiles in conv2d_host.cuh.
// Numerics: float32 sums over (r,s,c) in order, or over the splits in the order of ordered_sum; their number follows
//   from the shape. Bias and ReLU in float32, rounded once. The same bits for every tile and alignment. NaN passes
//   ReLU. Overwrites y.
// Measured: not measured.
#include "cuda/conv2d_epilogue.cuh"
#include "cuda/conv2d_host.cuh"
#include "cuda/depthwise.cuh"
#include "cuda/first_layer.cuh"
#include "cuda/ordered_sum.cuh"

namespace stapes::cuda {
namespace {

// kSplit: the copies are the groups, for each of which splits of the depth; D is a part of the sums.
template <class M, template <class> class Source, bool kSplit>
struct FwdProblem {
  using Math = M;
  using T = typename Math::Element;
  using Out = std::conditional_t<kSplit, float, T>;
  using A = Source<Patches<T>>;
  using B = Source<Filters<T>>;
  using Epilogue = StoreImages<Out, EveryPixel>;

  A a;
  B b;
  Epilogue epilogue;
  std::int64_t partial;     // elements: of a whole y
  int splits, split_depth;  // where kSplit
  BlockGrid blocks;

  template <class Tile>
  __device__ __forceinline__ Part<A, B, Epilogue> part(unsigned block) const {
    const BlockGrid::Place at = blocks.place<Tile>(block);
    Part<A, B, Epilogue> p{a, b, epilogue, at.m, at.n, 0, b.length};
    int group = at.copy;
    if constexpr (kSplit) {
      group = at.copy / splits;
      const int split = at.copy - group * splits;
      p.depth_begin = split * split_depth;
      p.depth_end = min(p.depth_begin + split_depth, b.length);
      p.epilogue.y += split * partial;
    }
    const int first = group * b.filters;
    p.a.images.data += static_cast<std::int64_t>(group) * a.taps.low.divisor();
    p.b.w += static_cast<std::int64_t>(first) * b.length;
    p.epilogue.y += first;
    if (epilogue.b != nullptr) p.epilogue.b += first;
    return p;
  }
};

// Where tiles are few and the sums long, as in a Linear layer behind a Flatten, each sum is several blocks'.
struct DepthSplits {
  std::int64_t count, depth;  // depth: a multiple of each type's kStageDepth, or all of it
};

DepthSplits depth_splits(std::int64_t pixels, std::int64_t K, std::int64_t groups, std::int64_t length) {
  constexpr std::int64_t kFewTiles = 128, kTargetBlocks = 256, kLeastDepth = 256, kMultiple = kStageDepth<half>;
  const std::int64_t tiles = ceil_div<std::int64_t>(pixels, Small::kM) * ceil_div<std::int64_t>(K, Small::kN) * groups;
  if (tiles >= kFewTiles || length < 2 * kLeastDepth) return {1, length};
  const std::int64_t wanted = std::min(ceil_div(kTargetBlocks, tiles), length / kLeastDepth);
  const std::int64_t depth = ceil_div(ceil_div(length, wanted), kMultiple) * kMultiple;
  return {ceil_div(length, depth), depth};
}

// What StoreImages does, to the sum of the splits.
template <class T>
struct FinishImage {
  T* y;
  const float* b;  // may be null
  std::int64_t K;
  bool relu;

  __device__ __forceinline__ void operator()(std::int64_t i, float sum) const {
    const float v = b != nullptr ? sum + b[i % K] : sum;
    y[i] = from_float<T>(relu && v < 0.0f ? 0.0f : v);
  }
};

// What a launch has to do, but for the epilogue: images n and N more.
template <class Problem>
Problem problem_of(const Conv2dFwdArgs& args, const Conv2dShape& s, std::int64_t n, std::int64_t N) {
  using T = typename Problem::T;
  const Window2d& w = s.window;
  const std::int64_t C = s.C / s.groups;
  Problem problem{};
  problem.a.images = {static_cast<const T*>(args.x) + n * s.H * s.W * s.C,
                      forward_axis(s.H, w.stride_h, w.dil_h, w.pad_top, w.kernel_h),
                      forward_axis(s.W, w.stride_w, w.dil_w, w.pad_left, w.kernel_w), s.C};
  problem.a.pixels = PixelRow(N, w.P, w.Q);
  problem.a.taps = {static_cast<int>(w.kernel_w), Division(C)};
  problem.b.w = static_cast<const T*>(args.w);
  problem.b.filters = static_cast<int>(s.K / s.groups);
  problem.b.length = static_cast<int>(w.kernel_h * w.kernel_w * C);
  return problem;
}

// The D of `pixels` pixels goes to `to`, with what the epilogue adds to it.
template <class Problem>
void set_epilogue(Problem& problem, typename Problem::Out* to, const float* b, bool relu, std::int64_t K,
                  std::int64_t pixels) {
  const int count = problem.b.filters;
  const bool pairs = count % 2 == 0 && is_aligned(to, 2 * sizeof(*to));
  problem.epilogue = {to, b, K, count, relu, pairs, {static_cast<int>(pixels)}};
}

template <class Math, template <class> class Source>
void run(const Conv2dFwdArgs& args, const Conv2dShape& s, Stream stream) {
  using T = typename Math::Element;
  using Whole = FwdProblem<Math, Source, false>;
  using Partial = FwdProblem<Math, Source, true>;
  using Few = std::conditional_t<Whole::A::kWhole, Small, SmallFew>;
  const std::int64_t at_once = images_at_once(s), K = s.K / s.groups;
  const float* const b = static_cast<const float*>(args.b);
  for (std::int64_t n = 0; n < s.N; n += at_once) {
    const std::int64_t N = std::min(at_once, s.N - n), image = s.window.P * s.window.Q, pixels = N * image;
    T* const y = static_cast<T*>(args.y) + n * image * s.K;
    const DepthSplits splits =
        depth_splits(pixels, K, s.groups, s.window.kernel_h * s.window.kernel_w * s.C / s.groups);
    if (splits.count > 1) {
      const std::int64_t size = pixels * s.K;
      const Workspace sums(static_cast<std::size_t>(splits.count * size) * sizeof(float), stream);
      auto problem = problem_of<Partial>(args, s, n, N);
      set_epilogue(problem, sums.as<float>(), nullptr, false, s.K, pixels);
      problem.partial = size;
      problem.splits = static_cast<int>(splits.count);
      problem.split_depth = static_cast<int>(splits.depth);
      launch_gemm<Few>(problem, pixels, K, s.groups * splits.count, stream);
      ordered_sum(sums.as<float>(), problem.splits, size, size, FinishImage<T>{y, b, s.K, args.relu}, stream);
      continue;
    }
    auto problem = problem_of<Whole>(args, s, n, N);
    set_epilogue(problem, y, b, args.relu, s.K, pixels);
    const auto launch_tile = [&](auto tile) { launch_gemm<decltype(tile)>(problem, pixels, K, s.groups, stream); };
    if constexpr (Whole::A::kWhole) {
      with_tile(typename ImageTiles<Math>::List{}, pixels, K, s.groups, kEnoughBlocks, launch_tile);
    } else {
      launch_tile(Few{});
    }
  }
}

}  // namespace

void conv2d_fwd(const Conv2dFwdArgs& args, Stream stream) {
  if (args.shape.N == 0) return;
  if (depthwise_fwd(args, stream) || first_layer_fwd(args, stream)) return;
  const Conv2dShape s = flatten_pointwise(args.shape);
  check_sizes("conv2d_fwd", s);
  with_math("conv2d_fwd", args.dtype, args.precision, [&]<class Math>(Use<Math>) {
    constexpr std::size_t kSize = sizeof(typename Math::Element);
    const bool whole = in_pieces(kSize, s.C / s.groups, args.x) && in_pieces(kSize, s.C / s.groups, args.w);
    if (whole) {
      run<Math, Pieces>(args, s, stream);
    } else {
      run<Math, Elements>(args, s, stream);
    }
  });
}

}  // namespace stapes::cuda
