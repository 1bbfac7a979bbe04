// y = max_pool2d(relu(conv2d(x, w) + b)) with argmax
// x (N,H,W,C), w (K,R,S,C), y and argmax (N, P / pool_h, Q / pool_w, K); windows do not overlap, leftover rows and
// columns are dropped, a window has at most 255 places.
// Work: as choice.hpp says by winograd.hpp, whose tile is the window, or by first_pool.hpp. Else bands are whole
// windows; a band's convolution stays in a cache-sized scratch, is pooled from there and never written out.
// Numerics: those of the parts. The maximum is taken before ReLU: a window whose largest value is <= 0 is dead
// (argmax 255), and gets no gradient. NaN is never dead. Overwrites.
#include "core/dispatch.hpp"
#include "cpu/choice.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

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
  constexpr Index kMostOutputs = 2;  // in units of kPatchTarget
  const Index per_pixel = ceil_div(pool.K, kMostOutputs), C = conv.grid.C;
  return {conv.grid, per_pixel > C ? kPatchTarget * C / per_pixel : kPatchTarget, needs_slack(conv), pool.pool_h,
          pool.pool_w};
}

template <class T>
void fwd_direct(const Conv2dReluMaxPool2dFwdArgs& a, const PoolGrid& pool) {
  const Forward<T> forward(static_cast<const T*>(a.x), static_cast<const T*>(a.w), static_cast<const T*>(a.b),
                           covered(a.shape, pool), false);
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
}

// A first layer, from the same packed weights.
template <class T>
void fwd_first(const Conv2dReluMaxPool2dFwdArgs& a, const PoolGrid& pool) {
  const Forward<T> forward(static_cast<const T*>(a.x), static_cast<const T*>(a.w), static_cast<const T*>(a.b),
                           covered(a.shape, pool), false);
  FirstPool<T>(forward.conv(), pool, static_cast<T*>(a.y), a.argmax)();
}

template <class T>
void fwd_winograd(const Conv2dReluMaxPool2dFwdArgs& a, const PoolGrid& pool) {
  const auto winograd =
      Winograd<T>::forward(static_cast<const T*>(a.x), static_cast<const T*>(a.w), covered(a.shape, pool));
  winograd.run([&](const Band& of, Index i, Index j, Index k, const TileOutputs<T>& tile, Index count) {
    const Index window = (of.n * pool.rows() + of.p / 2 + i) * pool.cols() + of.q / 2 + j;
    const T* b = a.b == nullptr ? nullptr : static_cast<const T*>(a.b) + k;
    pool_tile(with_bias(tile, b, count), count, static_cast<T*>(a.y) + window * pool.K + k,
              a.argmax + window * pool.K + k);
  });
}

void fwd(const Conv2dReluMaxPool2dFwdArgs& a) {
  const PoolGrid pool{a.shape.N, a.shape.window.P, a.shape.window.Q, a.shape.K, a.pool_h, a.pool_w};
  if (pool.N == 0) return;
  with_dtype(a.dtype, [&]<class T>(T) {
    switch (choose_pooled_fwd<T>(a.shape, pool)) {
      case PooledFwd::kWinograd: return fwd_winograd<T>(a, pool);
      case PooledFwd::kFirst: return fwd_first<T>(a, pool);
      case PooledFwd::kDirect: return fwd_direct<T>(a, pool);
    }
  });
}

const Register kFwd{conv2d_relu_max_pool2d_fwd, kIsa, fwd};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
