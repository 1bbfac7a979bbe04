// y[n,p,q,k] = act(b[k] + sum over r,s,c of x[n, p*stride_h + r*dil_h - pad_top, q*stride_w + s*dil_w - pad_left, c] *
// w[k,r,s,c]), x being 0 outside of the image
// Layout: x (N,H,W,C), w (K,R,S,C/groups), b (K,) float32, y (N,P,Q,K); x, w, y float32, float16 or bfloat16. Any sizes
//   and addresses; pieces of 16 bytes are read where C/groups and the addresses of x and w are multiples of that.
// Work: implicit GEMM (conv2d_gemm.cuh) for each group: M = N*P*Q pixels, N = K/groups, depth R*S*C/groups. The patches
//   of x are gathered on the way to shared memory. Also conv_transpose2d's dgrad and, as 1x1, linear_fwd.
// Launch bounds, registers: the table of tiles in conv2d_host.cuh.
// Numerics: float32 sums over (r,s,c) in order, bias and ReLU in float32, rounded once. The same bits for every tile
//   and alignment. NaN passes ReLU. Overwrites y.
// Measured: not measured.
#include "cuda/conv2d_epilogue.cuh"
#include "cuda/conv2d_host.cuh"
#include "cuda/depthwise.cuh"
#include "cuda/first_layer.cuh"

namespace stapes::cuda {
namespace {

template <class M, template <class> class Source>
struct FwdProblem {
  using Math = M;
  using T = typename Math::Element;
  using A = Source<Patches<T>>;
  using B = Source<Filters<T>>;
  using Epilogue = StoreImages<T, EveryPixel>;

  A a;
  B b;
  Epilogue epilogue;
  BlockGrid blocks;

  template <class Tile>
  __device__ __forceinline__ Part<A, B, Epilogue> part(unsigned block) const {
    const BlockGrid::Place at = blocks.place<Tile>(block);
    Part<A, B, Epilogue> p{a, b, epilogue, at.m, at.n, 0, b.length};
    const int group = at.copy, first = group * b.filters;
    p.a.images.data += static_cast<std::int64_t>(group) * a.taps.low.divisor();
    p.b.w += static_cast<std::int64_t>(first) * b.length;
    p.epilogue.y += first;
    if (epilogue.b != nullptr) p.epilogue.b += first;
    return p;
  }
};

template <class Math, template <class> class Source>
void run(const Conv2dFwdArgs& args, const Conv2dShape& s, Stream stream) {
  using Problem = FwdProblem<Math, Source>;
  using T = typename Math::Element;
  const Window2d& w = s.window;
  const std::int64_t C = s.C / s.groups, K = s.K / s.groups, at_once = images_at_once(s);
  for (std::int64_t n = 0; n < s.N; n += at_once) {
    const std::int64_t N = std::min(at_once, s.N - n), pixels = N * w.P * w.Q;
    T* const y = static_cast<T*>(args.y) + n * w.P * w.Q * s.K;
    Problem problem{};
    problem.a.images = {static_cast<const T*>(args.x) + n * s.H * s.W * s.C,
                        forward_axis(s.H, w.stride_h, w.dil_h, w.pad_top, w.kernel_h),
                        forward_axis(s.W, w.stride_w, w.dil_w, w.pad_left, w.kernel_w), s.C};
    problem.a.pixels = PixelRow(N, w.P, w.Q);
    problem.a.taps = {static_cast<int>(w.kernel_w), Division(C)};
    problem.b.w = static_cast<const T*>(args.w);
    problem.b.filters = static_cast<int>(K);
    problem.b.length = static_cast<int>(w.kernel_h * w.kernel_w * C);
    problem.epilogue = {y,
                        static_cast<const float*>(args.b),
                        s.K,
                        static_cast<int>(K),
                        args.relu,
                        K % 2 == 0 && is_aligned(y, 2 * sizeof(T)),
                        {static_cast<int>(pixels)}};
    const auto launch_tile = [&](auto tile) { launch_gemm<decltype(tile)>(problem, pixels, K, s.groups, stream); };
    if constexpr (Problem::A::kWhole) {
      with_tile(typename ImageTiles<Math>::List{}, pixels, K, s.groups, kEnoughBlocks, launch_tile);
    } else {
      launch_tile(SmallFew{});
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
