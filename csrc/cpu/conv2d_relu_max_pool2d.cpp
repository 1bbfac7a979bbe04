// y = max_pool2d(relu(conv2d(x, w) + b)) with argmax, and dx, dw, db from the gradient of y
// x (N,H,W,C), w (K,R,S,C), y and argmax (N, P / pool_h, Q / pool_w, K); windows do not overlap, leftover rows and
// columns are dropped, a window has at most 255 places.
// Work: forward: bands are whole windows; a band's convolution stays in a cache-sized scratch, is pooled from there
// and never written out. Backward: pool_sparse_wgrad.hpp and pool_sparse_dgrad.hpp, or, where these do not take the
// shape, dy goes to the argmax position of its window and the dense kernels do the rest.
// Numerics: those of the parts. The maximum is taken before ReLU: a window whose largest value is <= 0 is dead
// (argmax 255), and gets no gradient. NaN is never dead. Both overwrite.
#include <optional>

#include "core/dispatch.hpp"
#include "cpu/conv2d.hpp"
#include "cpu/pool_select_wgrad.hpp"
#include "cpu/pool_sparse_dgrad.hpp"
#include "cpu/pool_sparse_wgrad.hpp"

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
  constexpr Index kMostOutputs = 4;  // in units of kPatchTarget
  const Index per_pixel = ceil_div(pool.K, kMostOutputs), C = conv.grid.C;
  return {conv.grid, per_pixel > C ? kPatchTarget * C / per_pixel : kPatchTarget, needs_slack(conv), pool.pool_h,
          pool.pool_w};
}

void fwd(const Conv2dReluMaxPool2dFwdArgs& a) {
  const Window2d& w = a.shape.window;
  const PoolGrid pool{a.shape.N, w.P, w.Q, a.shape.K, a.pool_h, a.pool_w};
  if (pool.N == 0) return;
  const Conv2dShape shape = covered(a.shape, pool);
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

// Does argmax hold nothing but places of a window and kDead?
bool is_valid(const std::uint8_t* argmax, Index size, Index area) {
  bool valid = true;
  parallel_ranges(size, kGrain, [&](Index begin, Index end) {
    const auto most = static_cast<std::uint8_t>(area - 1);
    int wrong = 0;
    for (Index i = begin; i < end; ++i) wrong |= static_cast<int>(argmax[i] > most && argmax[i] != kDead);
    if (wrong != 0) __atomic_store_n(&valid, false, __ATOMIC_RELAXED);
  });
  return valid;
}

// The gradient of the convolution's output, for the dense kernels: made when it is first asked for.
template <class T>
class Expanded {
 public:
  Expanded(const Conv2dReluMaxPool2dBwdArgs& a, const PoolGrid& pool) : a_(a), pool_(pool) {}

  const T* operator()() {
    if (dz_) return dz_->template as<T>();
    const Index rows = pool_.rows(), cols = pool_.cols();
    dz_.emplace(static_cast<std::size_t>(pool_.N * pool_.P * pool_.Q * pool_.K) * sizeof(T));
    const Window2d windows{pool_.pool_h, pool_.pool_w, pool_.pool_h, pool_.pool_w, 1, 1, 0, 0, 0, 0, rows, cols};
    max_pool2d_bwd({a_.dy, a_.argmax, dz_->template as<T>(), pool_.N, pool_.P, pool_.Q, pool_.K, windows, a_.dtype,
                    DType::kUInt8, a_.argmax_valid});
    return dz_->template as<T>();
  }

 private:
  const Conv2dReluMaxPool2dBwdArgs& a_;
  const PoolGrid& pool_;
  std::optional<Workspace> dz_;
};

template <class T>
void weight_gradient(const Conv2dReluMaxPool2dBwdArgs& a, const PoolGrid& pool, Expanded<T>& dz) {
  T *dw = static_cast<T*>(a.dw), *db = static_cast<T*>(a.db);
  if constexpr (kLanes<T> >= 4) {
    if (PoolSelectWgrad<T>::takes(a.shape, pool)) return PoolSelectWgrad<T>(a, pool)(dw, db);
  }
  if (PoolSparseWgrad<T>::takes(a.shape, pool)) return PoolSparseWgrad<T>(a, pool)(dw, db);
  conv2d_wgrad({dz(), a.x, dw, a.shape, a.dtype});
  conv2d_bgrad({dz(), db, pool.N * pool.P * pool.Q, pool.K, a.dtype});
}

template <class T>
void input_gradient(const Conv2dReluMaxPool2dBwdArgs& a, const PoolGrid& pool, Expanded<T>& dz) {
  if (PoolSparseDgrad<T>::takes(a.shape, pool)) return PoolSparseDgrad<T>(a, pool)(static_cast<T*>(a.dx));
  conv2d_dgrad({dz(), a.w, nullptr, a.dx, a.shape, a.dtype});
}

void bwd(const Conv2dReluMaxPool2dBwdArgs& a) {
  const Window2d& w = a.shape.window;
  const PoolGrid pool{a.shape.N, w.P, w.Q, a.shape.K, a.pool_h, a.pool_w};
  *a.argmax_valid = is_valid(a.argmax, pool.N * pool.rows() * pool.cols() * pool.K, pool.area());
  if (!*a.argmax_valid) return;
  with_dtype(a.dtype, [&]<class T>(T) {
    Expanded<T> dz(a, pool);
    weight_gradient(a, pool, dz);
    if (a.dx != nullptr) input_gradient(a, pool, dz);
  });
}

const Register kFwd{conv2d_relu_max_pool2d_fwd, kIsa, fwd};
const Register kBwd{conv2d_relu_max_pool2d_bwd, kIsa, bwd};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
