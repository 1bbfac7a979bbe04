// dw[k,r,s,c] = sum_{n,p,q} dy[n,p,q,k] * x[n, p*stride_h + r*dil_h - pad_top, q*stride_w + s*dil_w - pad_left, c]
// Layout: dy (N,P,Q,K), x (N,H,W,C) float32, float16 or bfloat16, dw (K,R,S,C/groups) float32. Any sizes and addresses;
//   pieces of 16 bytes are read where K/groups and C/groups and the addresses of dy and x are multiples of that.
// Work: implicit GEMM (conv2d_gemm.cuh) for each group: M = K/groups, N = R*S*C/groups, depth the N*P*Q pixels, in
//   as many splits as make about kTargetBlocks blocks: a number that follows from the shape alone. A split sums the
//   pixels of its own into a partial dw, ordered_sum adds these. One split writes dw itself.
// Launch bounds, registers: the table of tiles in conv2d_host.cuh.
// Numerics: float32 sums, a split's pixels in order, then the splits in the order of ordered_sum. The same bits for
//   every tile and alignment, and on every device of one architecture. Overwrites.
// Measured: not measured.
#include "cuda/conv2d_wgrad.cuh"
#include "cuda/depthwise.cuh"
#include "cuda/first_layer.cuh"

namespace stapes::cuda {
namespace {

template <class Math, template <class> class Source>
void run(const Conv2dWgradArgs& args, const Conv2dShape& s, Stream stream) {
  using T = typename Math::Element;
  const auto set_gradient = [&](Gradient<T>& gradient, std::int64_t n) {
    gradient.dy = static_cast<const T*>(args.dy) + n * s.window.P * s.window.Q * s.K;
    gradient.pixel = s.K;
  };
  run_wgrad<Math, Source<Gradient<T>>, Source<PatchesByPlace<T>>>(args, s, set_gradient, stream);
}

}  // namespace

void conv2d_wgrad(const Conv2dWgradArgs& args, Stream stream) {
  const bool empty = args.shape.N == 0;
  if (!empty && (depthwise_wgrad(args, stream) || first_layer_wgrad(args, stream))) return;
  const Conv2dShape s = flatten_pointwise(args.shape);
  check_sizes("conv2d_wgrad", s);
  with_math("conv2d_wgrad", args.dtype, args.precision, [&]<class Math>(Use<Math>) {
    constexpr std::size_t kSize = sizeof(typename Math::Element);
    if (in_pieces(kSize, s.K / s.groups, args.dy) && in_pieces(kSize, s.C / s.groups, args.x)) {
      run<Math, Pieces>(args, s, stream);
    } else {
      run<Math, Elements>(args, s, stream);
    }
  });
}

}  // namespace stapes::cuda
