// dx, dw, db from dy, the gradient of y = max_pool2d(max(0, conv2d(x, w) + b)), and argmax: those of the convolution,
// whose output's gradient dz is dy at the places that argmax names, and zero elsewhere
// Layout: dy and argmax (uint8) (N, P/pool_h, Q/pool_w, K), x and dx (N,H,W,C), w (K,R,S,C), dw (K,R,S,C) and db (K,)
//   float32; dy, x, w, dx float32, float16 or bfloat16; dx may be null. Any sizes, addresses and windows; an argmax
//   that is no place of its window counts as dead.
// Work: the implicit GEMMs of conv2d_dgrad and conv2d_wgrad, with dz read through conv2d_pooled.cuh: it is made piece
//   by piece on the way to shared memory, from dy and argmax in registers, and is in no other memory. db: conv2d_bgrad.
//   dw and db of C = 1 and C = 3 have a kernel of their own (first_layer_wgrad.cu).
// Launch bounds, registers: the table of tiles in conv2d_host.cuh.
// Numerics: those of conv2d_dgrad, conv2d_wgrad and conv2d_bgrad; dz is exact. Overwrites.
// Measured: not measured.
#include "cuda/conv2d_bgrad.cuh"
#include "cuda/conv2d_dgrad.cuh"
#include "cuda/conv2d_pooled.cuh"
#include "cuda/conv2d_wgrad.cuh"
#include "cuda/first_layer.cuh"

namespace stapes::cuda {
namespace {

constexpr const char* kOp = "conv2d_relu_max_pool2d_bwd";

// What dz is made of, from image n on.
template <class T>
Pooled<T> pooled(const Conv2dReluMaxPool2dBwdArgs& args, std::int64_t n) {
  const std::int64_t rows = args.shape.window.P / args.pool_h, cols = args.shape.window.Q / args.pool_w;
  const std::int64_t K = args.shape.K, first = n * rows * cols * K;
  return {static_cast<const T*>(args.dy) + first,
          args.argmax + first,
          K,
          Division(args.pool_h),
          Division(args.pool_w),
          static_cast<int>(rows),
          static_cast<int>(cols)};
}

// Tiles with more registers, where the pieces of dz that are on their way would not fit.
template <class Math>
struct PooledTiles {
  using Images = typename ImageTiles<Math>::List;
  using Filters = typename FilterTiles<Math>::List;
};
template <>
struct PooledTiles<Ffma> {
  using Images = Tiles<TallFew, Narrow, Small>;
  using Filters = typename FilterTiles<Ffma>::List;
};
template <class T>
struct PooledTiles<Mma16<T>> {
  using Images = Tiles<Tall, Narrow, Small>;
  using Filters = Tiles<TallFew, Square, Smallest>;
};

template <class Math, template <class> class PooledSource, template <class> class Source>
void input_gradient(const Conv2dReluMaxPool2dBwdArgs& args, const Conv2dShape& s, Stream stream) {
  using T = typename Math::Element;
  const auto set_images = [&](PooledImages<T>& images, std::int64_t n) { images.pooled = pooled<T>(args, n); };
  using A = PooledSource<PooledPatches<T>>;
  using B = Source<FiltersByChannel<T>>;
  const Conv2dDgradArgs dense{nullptr, args.w, nullptr, args.dx, s, args.dtype, args.precision};
  run_dgrad<Math, A, B, typename PooledTiles<Math>::Images>(dense, s, set_images, stream);
}

template <class Math, template <class> class PooledSource, template <class> class Source>
void weight_gradient(const Conv2dReluMaxPool2dBwdArgs& args, const Conv2dShape& s, Stream stream) {
  using T = typename Math::Element;
  const auto set_gradient = [&](PooledGradient<T>& gradient, std::int64_t n) {
    gradient.pooled = pooled<T>(args, n);
    gradient.map = {static_cast<int>(s.window.P), Division(s.window.Q)};
    gradient.N = static_cast<int>(std::min(images_at_once(s), s.N - n));
  };
  using A = PooledSource<PooledGradient<T>>;
  using B = Source<PatchesByPlace<T>>;
  const Conv2dWgradArgs dense{nullptr, args.x, args.dw, s, args.dtype, args.precision};
  run_wgrad<Math, A, B, typename PooledTiles<Math>::Filters>(dense, s, set_gradient, stream);
}

}  // namespace

void conv2d_relu_max_pool2d_bwd(const Conv2dReluMaxPool2dBwdArgs& args, Stream stream) {
  Conv2dShape s = args.shape;
  const std::int64_t rows = s.window.P / args.pool_h, cols = s.window.Q / args.pool_w;
  s.window.P = rows * args.pool_h;  // what windows cover
  s.window.Q = cols * args.pool_w;
  check_sizes(kOp, s);
  const bool weights_done = first_layer_relu_max_pool2d_wgrad(args, stream);
  with_math(kOp, args.dtype, args.precision, [&]<class Math>(Use<Math>) {
    constexpr std::size_t kSize = sizeof(typename Math::Element);
    const bool whole_dy = in_pieces(kSize, s.K, args.dy) && is_aligned(args.argmax, 8);
    if (!weights_done) {
      if (whole_dy && in_pieces(kSize, s.C, args.x)) {
        weight_gradient<Math, PooledPieces, Pieces>(args, s, stream);
      } else {
        weight_gradient<Math, PooledElements, Elements>(args, s, stream);
      }
    }
    if (args.dx == nullptr) return;
    if (whole_dy && in_pieces(kSize, s.C, args.w)) {
      input_gradient<Math, PooledPieces, Pieces>(args, s, stream);
    } else {
      input_gradient<Math, PooledElements, Elements>(args, s, stream);
    }
  });
  if (!weights_done) {
    pooled_bgrad({args.dy, args.db, s.N * rows * cols, s.K, args.dtype}, args.argmax, args.pool_h * args.pool_w,
                 stream);
  }
}

}  // namespace stapes::cuda
