// dx, dw and db from the gradient of y = max_pool2d(relu(conv2d(x, w) + b)) and its argmax
// dy and argmax (N, P / pool_h, Q / pool_w, K), x and dx (N,H,W,C), w and dw (K,R,S,C); dx may be absent.
// Work: the kernels that go over the pooled gradient (pool_select_wgrad.hpp, pool_sparse_wgrad.hpp,
// pool_sparse_dgrad.hpp) where choice.hpp says so; else dy goes to the argmax position of its window and the dense
// kernels do the rest.
// Numerics: those of the parts. Overwrites.
#include <optional>

#include "core/dispatch.hpp"
#include "cpu/choice.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

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
  const PooledWgrad chosen = choose_pooled_wgrad<T>(a.shape, pool);
  if (chosen == PooledWgrad::kSelect) return PoolSelectWgrad<T>(a, pool)(dw, db);
  if (chosen == PooledWgrad::kSparse) return PoolSparseWgrad<T>(a, pool)(dw, db);
  conv2d_wgrad({dz(), a.x, dw, a.shape, a.dtype});
  conv2d_bgrad({dz(), db, pool.N * pool.P * pool.Q, pool.K, a.dtype});
}

template <class T>
void input_gradient(const Conv2dReluMaxPool2dBwdArgs& a, const PoolGrid& pool, Expanded<T>& dz) {
  if (choose_pooled_dgrad<T>(a.shape, pool) == PooledDgrad::kSparse) {
    return PoolSparseDgrad<T>(a, pool)(static_cast<T*>(a.dx));
  }
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

const Register kBwd{conv2d_relu_max_pool2d_bwd, kIsa, bwd};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
