// dx[n,h,w,c] = b[c] + sum over r,s,k of dy[n,p,q,k] * w[k,r,s,c], where p*stride_h + r*dil_h - pad_top = h and
// q*stride_w + s*dil_w - pad_left = w; b is there in conv_transpose2d_fwd alone
// Layout: dy (N,P,Q,K), w (K,R,S,C/groups), b (C,) float32, dx (N,H,W,C); dy, w, dx float32, float16 or bfloat16. Any
//   sizes and addresses; pieces of 16 bytes are read where K/groups and C/groups and the addresses of dy and w are
//   multiples of that.
// Work: pixels fall into classes by their remainders of (h, w) by the strides: for the pixels of one class the same
//   places (r, s) meet dy, every (stride / gcd(stride, dil))-th of them, and each of these sees dy as a convolution of
//   stride 1 sees its input. So a class is an implicit GEMM (conv2d_gemm.cuh) without waste: M = the class's pixels,
//   N = C/groups, depth its places times K/groups. Groups and classes are copies of the grid of tiles, in one launch.
//   A class without a place (stride > kernel) writes b, or zeros.
// Launch bounds, registers: the table of tiles in conv2d_host.cuh.
// Numerics: float32 sums over (r,s,k) in order, rounded once. The same bits for every tile and alignment. Overwrites.
// Measured: not measured.
#include "cuda/conv2d_dgrad.cuh"
#include "cuda/depthwise.cuh"

namespace stapes::cuda {
namespace {

template <class Math, template <class> class Source>
void run(const Conv2dDgradArgs& args, const Conv2dShape& s, Stream stream) {
  using T = typename Math::Element;
  const auto set_images = [&](Images<T>& images, std::int64_t n) {
    images.data = static_cast<const T*>(args.dy) + n * s.window.P * s.window.Q * s.K;
    images.channels = s.K;
  };
  run_dgrad<Math, Source<Patches<T>>, Source<FiltersByChannel<T>>>(args, s, set_images, stream);
}

}  // namespace

void conv2d_dgrad(const Conv2dDgradArgs& args, Stream stream) {
  if (args.shape.N == 0) return;
  if (depthwise_dgrad(args, stream)) return;
  const Conv2dShape s = flatten_pointwise(args.shape);
  check_sizes("conv2d_dgrad", s);
  with_math("conv2d_dgrad", args.dtype, args.precision, [&]<class Math>(Use<Math>) {
    constexpr std::size_t kSize = sizeof(typename Math::Element);
    if (in_pieces(kSize, s.K / s.groups, args.dy) && in_pieces(kSize, s.C / s.groups, args.w)) {
      run<Math, Pieces>(args, s, stream);
    } else {
      run<Math, Elements>(args, s, stream);
    }
  });
}

}  // namespace stapes::cuda
