// y = max_pool2d(max(0, conv2d(x, w) + b)) with argmax: over the windows of pool_h x pool_w places, which do not
// overlap
// Layout: x (N,H,W,C), w (K,R,S,C), b (K,) float32 or null, y and argmax (uint8) (N, P/pool_h, Q/pool_w, K); x, w, y
//   float32, float16 or bfloat16; any sizes and addresses, leftover rows and columns are dropped.
// Work: windows of 2 or 4 places: the implicit GEMM of conv2d_fwd with its lines in the order of conv2d_windows.cuh,
//   so that bias, maximum, ReLU and argmax happen in registers and the full-size map never reaches memory. C = 1 and
//   C = 3 have a kernel of their own (first_layer_fwd.cu). Other windows: the convolution into scratch memory, then
//   a thread for each window and channel.
// Launch bounds, registers: the table of tiles in conv2d_host.cuh; 256 threads.
// Numerics: those of conv2d_fwd. The maximum is taken before ReLU: a window whose largest value is <= 0 is dead (y =
//   0, argmax 255); NaN never is, and the first one wins. In scratch memory 16-bit values are rounded before the
//   maximum, so that the first of those that round to the same one wins. Overwrites.
// Measured: not measured.
#include "cuda/conv2d_host.cuh"
#include "cuda/conv2d_windows.cuh"
#include "cuda/dtype.cuh"
#include "cuda/first_layer.cuh"

namespace stapes::cuda {
namespace {

constexpr const char* kOp = "conv2d_relu_max_pool2d_fwd";

template <class M, template <class> class Source, int kArea>
struct FusedProblem {
  using Math = M;
  using T = typename Math::Element;
  using A = Source<Patches<T, WindowPixels<kArea>>>;
  using B = Source<Filters<T>>;
  using Epilogue = StoreWindows<T, kArea>;

  A a;
  B b;
  Epilogue epilogue;
  BlockGrid blocks;

  template <class Tile>
  __device__ __forceinline__ Part<A, B, Epilogue> part(unsigned block) const {
    const BlockGrid::Place at = blocks.place<Tile>(block);
    return {a, b, epilogue, at.m, at.n, 0, b.length};
  }
};

template <class Math, template <class> class Source, int kArea>
void run(const Conv2dReluMaxPool2dFwdArgs& args, Stream stream) {
  using Problem = FusedProblem<Math, Source, kArea>;
  using T = typename Math::Element;
  const Conv2dShape& s = args.shape;
  const Window2d& w = s.window;
  const std::int64_t rows = w.P / args.pool_h, cols = w.Q / args.pool_w, at_once = images_at_once(s);
  for (std::int64_t n = 0; n < s.N; n += at_once) {
    const std::int64_t N = std::min(at_once, s.N - n), windows = N * rows * cols, first = n * rows * cols * s.K;
    T* const y = static_cast<T*>(args.y) + first;
    std::uint8_t* const argmax = args.argmax + first;
    Problem problem{};
    problem.a.images = {static_cast<const T*>(args.x) + n * s.H * s.W * s.C,
                        forward_axis(s.H, w.stride_h, w.dil_h, w.pad_top, w.kernel_h),
                        forward_axis(s.W, w.stride_w, w.dil_w, w.pad_left, w.kernel_w), s.C};
    problem.a.pixels = {PixelRow(N, rows, cols), static_cast<int>(args.pool_h), static_cast<int>(args.pool_w)};
    problem.a.taps = {static_cast<int>(w.kernel_w), Division(s.C)};
    problem.b.w = static_cast<const T*>(args.w);
    problem.b.filters = static_cast<int>(s.K);
    problem.b.length = static_cast<int>(w.kernel_h * w.kernel_w * s.C);
    problem.epilogue = {y,
                        argmax,
                        static_cast<const float*>(args.b),
                        s.K,
                        static_cast<int>(windows),
                        s.K % 2 == 0 && is_aligned(y, 2 * sizeof(T)) && is_aligned(argmax, 2)};
    const std::int64_t lines = WindowPixels<kArea>::lines(windows);
    const auto launch_tile = [&](auto tile) { launch_gemm<decltype(tile)>(problem, lines, s.K, 1, stream); };
    if constexpr (Problem::A::kWhole) {
      with_tile(typename ImageTiles<Math>::List{}, lines, s.K, 1, kEnoughBlocks, launch_tile);
    } else {
      launch_tile(SmallFew{});
    }
  }
}

template <int kArea>
void run(const Conv2dReluMaxPool2dFwdArgs& args, Stream stream) {
  check_sizes(kOp, args.shape);
  with_math(kOp, args.dtype, args.precision, [&]<class Math>(Use<Math>) {
    constexpr std::size_t kSize = sizeof(typename Math::Element);
    if (in_pieces(kSize, args.shape.C, args.x) && in_pieces(kSize, args.shape.C, args.w)) {
      run<Math, Pieces, kArea>(args, stream);
    } else {
      run<Math, Elements, kArea>(args, stream);
    }
  });
}

// ---- windows of other sizes, from the map of P x Q that they cover

template <class T>
struct PoolMap {
  const T* z;
  T* y;
  std::uint8_t* argmax;
  std::int64_t size, K;  // size: of y
  std::int64_t cols;     // windows of a row
  int pool_h, pool_w;
};

template <class T>
__global__ void __launch_bounds__(256) relu_max_pool2d_kernel(PoolMap<T> a) {
  const std::int64_t i = std::int64_t{blockIdx.x} * 256 + threadIdx.x;
  if (i >= a.size) return;
  const std::int64_t window = i / a.K, row = window / a.cols;
  const std::int64_t line = a.cols * a.pool_w * a.K;  // from a row of z to the next
  const T* const z = a.z + row * a.pool_h * line + (window - row * a.cols) * a.pool_w * a.K + (i - window * a.K);
  float best = to_float(*z);
  int place = 0;
  for (int r = 0; r < a.pool_h; ++r) {
    for (int s = 0; s < a.pool_w; ++s) {
      const float v = to_float(z[r * line + s * a.K]);
      const bool take = !(v <= best) && best == best;
      best = take ? v : best;
      place = take ? r * a.pool_w + s : place;
    }
  }
  const bool dead = best <= 0.0f;
  a.y[i] = dead ? from_float<T>(0.0f) : from_float<T>(best);
  a.argmax[i] = static_cast<std::uint8_t>(dead ? kDead : place);
}

void run_unfused(const Conv2dReluMaxPool2dFwdArgs& args, Stream stream) {
  Conv2dShape s = args.shape;
  const std::int64_t rows = s.window.P / args.pool_h, cols = s.window.Q / args.pool_w;
  s.window.P = rows * args.pool_h;
  s.window.Q = cols * args.pool_w;
  const std::int64_t elements = s.N * s.window.P * s.window.Q * s.K;
  const Workspace z(static_cast<std::size_t>(elements) * size_of(args.dtype), stream);
  conv2d_fwd({args.x, args.w, args.b, z.data(), s, false, args.dtype, args.precision}, stream);
  with_cuda_dtype(args.dtype, [&]<class T>(T) {
    const std::int64_t size = s.N * rows * cols * s.K;
    const PoolMap<T> map{z.as<const T>(),
                         static_cast<T*>(args.y),
                         args.argmax,
                         size,
                         s.K,
                         cols,
                         static_cast<int>(args.pool_h),
                         static_cast<int>(args.pool_w)};
    launch(relu_max_pool2d_kernel<T>, dim3(static_cast<unsigned>(ceil_div<std::int64_t>(size, 256))), dim3(256), 0,
           stream, map);
  });
}

}  // namespace

void conv2d_relu_max_pool2d_fwd(const Conv2dReluMaxPool2dFwdArgs& args, Stream stream) {
  if (first_layer_relu_max_pool2d_fwd(args, stream)) return;
  switch (args.pool_h * args.pool_w) {
    case 2: return run<2>(args, stream);
    case 4: return run<4>(args, stream);
    default: run_unfused(args, stream);
  }
}

}  // namespace stapes::cuda
