// y = max_pool2d(relu(conv2d(x, w) + b)) with argmax, and dx, dw, db from the gradient of y
// x (N,H,W,C), w (K,R,S,C), y and argmax (N, P / pool_h, Q / pool_w, K); windows do not overlap, leftover rows and
// columns are dropped, a window has at most 255 places.
// Work: forward: bands are whole windows; a band's convolution stays in a cache-sized scratch, is pooled from there
// and never written out. Backward: dy goes to the argmax position of its window, and the dense dgrad and wgrad do the
// rest.
// Numerics: those of the parts. The maximum is taken before ReLU: a window whose largest value is <= 0 is dead
// (argmax 255), and gets no gradient. NaN is never dead. Both overwrite.
#include "core/dispatch.hpp"
#include "cpu/conv2d.hpp"
#include "cpu/pool_window.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

struct PoolGrid {
  Index N, P, Q, K;  // of the convolution
  Index pool_h, pool_w;
  Index rows() const { return P / pool_h; }
  Index cols() const { return Q / pool_w; }
};

template <class T>
void pool_band(const PoolGrid& g, const Band& band, const T* z, T* y, std::uint8_t* argmax) {
  const Index z_row = band.cols * g.K;
  for (Index i = 0; i < band.rows / g.pool_h; ++i)
    for (Index j = 0; j < band.cols / g.pool_w; ++j) {
      const Index at = ((band.n * g.rows() + band.p / g.pool_h + i) * g.cols() + band.q / g.pool_w + j) * g.K;
      const Index corner = i * g.pool_h * z_row + j * g.pool_w * g.K;
      if (g.pool_h == 2 && g.pool_w == 2) {  // constants, so that it is unrolled
        pool_window<true>(z, corner, z_row, g.K, {0, 2}, {0, 2}, 2, y + at, argmax + at);
      } else {
        pool_window<true>(z, corner, z_row, g.K, {0, g.pool_h}, {0, g.pool_w}, g.pool_w, y + at, argmax + at);
      }
    }
}

// Bands so small that both the patch and the convolution of it stay in the cache, also where K is far above C.
template <class T>
Bands fused_bands(const DirectConv<T>& conv, const PoolGrid& pool) {
  constexpr Index kMostOutputs = 4;  // in units of kPatchTarget
  const Index per_pixel = ceil_div(pool.K, kMostOutputs), C = conv.grid.C;
  return {conv.grid, per_pixel > C ? kPatchTarget * C / per_pixel : kPatchTarget, needs_slack(conv), pool.pool_h,
          pool.pool_w};
}

void fwd(const Conv2dReluMaxPool2dFwdArgs& a) {
  const Window2d& w = a.shape.window;
  const PoolGrid pool{a.shape.N, w.P, w.Q, a.shape.K, a.pool_h, a.pool_w};
  if (pool.N == 0) return;
  Conv2dShape shape = a.shape;  // the positions that a window covers
  shape.window.P = pool.rows() * a.pool_h;
  shape.window.Q = pool.cols() * a.pool_w;
  with_dtype(a.dtype, [&]<class T>(T) {
    const Forward<T> forward(static_cast<const T*>(a.x), static_cast<const T*>(a.w), static_cast<const T*>(a.b), shape,
                             false);
    const DirectConv<T>& conv = forward.conv();
    const Bands bands = fused_bands(conv, pool);
    const Segments<T> segments(conv, bands);
    const int threads = num_threads();
    const Index patch_elements = bands.patch_elements();
    const Index own_elements = patch_elements + bands.rows() * bands.cols() * pool.K;
    const Workspace scratch = workspace_of<T>(threads * own_elements);
    parallel_for(bands.count(), threads, [&](Index task, int thread) {
      const Band band = bands[task];
      T *own = scratch.as<T>() + thread * own_elements, *z = own + patch_elements;
      const T* patch = bands.gather(conv.input, band, own);
      run_band(conv, bands, band, patch, segments, Output<T>{z, band.cols * pool.K, pool.K}, {0, unit_count(conv)});
      pool_band(pool, band, z, static_cast<T*>(a.y), a.argmax);
    });
  });
}

void bwd(const Conv2dReluMaxPool2dBwdArgs& a) {
  const Window2d& w = a.shape.window;
  const PoolGrid pool{a.shape.N, w.P, w.Q, a.shape.K, a.pool_h, a.pool_w};
  const Window2d windows{a.pool_h, a.pool_w, a.pool_h, a.pool_w, 1, 1, 0, 0, 0, 0, pool.rows(), pool.cols()};
  const Workspace memory(static_cast<std::size_t>(pool.N * pool.P * pool.Q * pool.K) * size_of(a.dtype));
  void* dz = memory.as<void>();
  max_pool2d_bwd({a.dy, a.argmax, dz, pool.N, pool.P, pool.Q, pool.K, windows, a.dtype, DType::kUInt8, a.argmax_valid});
  if (!*a.argmax_valid) return;
  conv2d_wgrad({dz, a.x, a.dw, a.shape, a.dtype});
  conv2d_bgrad({dz, a.db, pool.N * pool.P * pool.Q, pool.K, a.dtype});
  if (a.dx != nullptr) conv2d_dgrad({dz, a.w, nullptr, a.dx, a.shape, a.dtype});
}

const Register kFwd{conv2d_relu_max_pool2d_fwd, kIsa, fwd};
const Register kBwd{conv2d_relu_max_pool2d_bwd, kIsa, bwd};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
