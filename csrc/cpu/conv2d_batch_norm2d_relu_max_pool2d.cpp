// conv2d_batch_norm2d_relu_max_pool2d, the first block of a network: the convolution's output u is never read
//   fwd: u = conv2d(x, w) + b, z as batch_norm2d's y of u, y = max_pool2d(max(0, z)) with argmax, kDead where z <= 0
//   bwd: the gradients of w, gamma, beta and b; there is none of x
// Layout as conv2d_relu_max_pool2d; u is over all positions (N, P, Q), also those that no window covers.
// Work: where choice.hpp says so, by the patches' Gram matrix G and sums s (patch_gram.hpp). Forward: the mean of
// channel k is w_k s / n + b_k, its variance w_k (G / n - s s' / n^2) w_k; then conv2d_relu_max_pool2d with weights and
// biases that normalise. Backward: that operator's dw and db are S = sum g patch and sum g; then
// sum g u = w_k S_k + b_k sum g, and
//   dw_k = scale S_k + slope (w_k G + (b_k - mean) s) + shift s   for   du = scale g + slope (u - mean) + shift.
// Otherwise u lies in scratch memory, computed anew in the backward.
// Numerics: Gram matrix, statistics and these formulas in double; the rest as in conv2d_relu_max_pool2d. All overwrite.
// Source: S. Ioffe, C. Szegedy, "Batch Normalization", 2015; the formulas follow from the convolution's linearity.
#include "core/dispatch.hpp"
#include "cpu/batch_norm2d.hpp"
#include "cpu/choice.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

// The convolution seen through the sums of its patches; in evaluation nobody asks for these.
template <class T>
class Patches {
 public:
  Patches(const Conv2dFwdArgs& conv, bool training)
      : w_(static_cast<const T*>(conv.w)),
        b_(static_cast<const T*>(conv.b)),
        numbers_(conv.shape.window.kernel_h * conv.shape.window.kernel_w * conv.shape.C),
        outputs_(static_cast<double>(conv.shape.N * conv.shape.window.P * conv.shape.window.Q)),
        memory_(workspace_of<double>((numbers_ + 1) * (numbers_ + 2))) {
    if (training) PatchGram<T>(static_cast<const T*>(conv.x), conv.shape)(memory_.template as<double>());
  }

  Index numbers() const { return numbers_; }
  double outputs() const { return outputs_; }
  double w(Index k, Index i) const { return static_cast<double>(w_[k * numbers_ + i]); }
  double b(Index k) const { return b_ == nullptr ? 0 : static_cast<double>(b_[k]); }
  double sum(Index i) const { return gram(i, numbers_); }

  // w_k times a column of the Gram matrix: the sum of (u_k - b_k) patch_i.
  double product(Index k, Index i) const {
    double total = 0;
    for (Index j = 0; j < numbers_; ++j) total += w(k, j) * gram(j, i);
    return total;
  }

  double mean(Index k) const { return product(k, numbers_) / outputs_ + b(k); }

  double variance(Index k) const {
    const double mean = product(k, numbers_) / outputs_;
    double square = 0;
    for (Index i = 0; i < numbers_; ++i) square += w(k, i) * (product(k, i) - mean * sum(i));
    return square < 0 ? 0 : square / outputs_;
  }

 private:
  double gram(Index i, Index j) const { return memory_.template as<double>()[i * (numbers_ + 1) + j]; }

  const T *w_, *b_;
  Index numbers_;
  double outputs_;
  Workspace memory_;
};

template <class T>
void fwd_by_gram(const Conv2dBatchNorm2dReluMaxPool2dFwdArgs& a) {
  const Index K = a.norm.channels;
  const Patches<T> patches(a.conv, a.norm.training);
  const Index L = patches.numbers();
  const Workspace statistics = workspace_of<double>(2 * K), folded = workspace_of<T>((4 + L) * K);
  double *mean = statistics.as<double>(), *var = mean + K;
  if (a.norm.training) {
    parallel_for(K, [&](Index k) {
      mean[k] = patches.mean(k);
      var[k] = patches.variance(k);
    });
  }
  T *center = folded.as<T>(), *b = center + 3 * K, *w = b + K;
  const Normalisation<T> n{center, center + K, center + 2 * K};
  settle(a.norm, mean, var, n);
  for (Index k = 0; k < K; ++k) {
    const double scale = static_cast<double>(n.scale[k]);
    b[k] = static_cast<T>(static_cast<double>(n.shift[k]) + (patches.b(k) - static_cast<double>(center[k])) * scale);
    for (Index i = 0; i < L; ++i) w[k * L + i] = static_cast<T>(patches.w(k, i) * scale);
  }
  conv2d_relu_max_pool2d_fwd(
      {a.conv.x, w, b, a.norm.y, a.argmax, a.conv.shape, a.map.pool_h, a.map.pool_w, a.conv.dtype});
}

template <class T>
void bwd_by_gram(const Conv2dBatchNorm2dReluMaxPool2dBwdArgs& a) {
  const Index K = a.norm.channels;
  const Index L = a.conv.shape.window.kernel_h * a.conv.shape.window.kernel_w * a.conv.shape.C;
  const Workspace sums = workspace_of<T>((1 + L) * K);
  T *db = sums.as<T>(), *dw = db + K;
  conv2d_relu_max_pool2d_bwd({a.norm.dy, a.argmax, a.conv.x, a.conv.w, nullptr, dw, db, a.conv.shape, a.map.pool_h,
                              a.map.pool_w, a.conv.dtype, Precision::kFp32, a.argmax_valid});
  if (!*a.argmax_valid) return;
  const Patches<T> patches(a.conv, a.norm.training);
  const auto *gamma = static_cast<const T*>(a.norm.gamma), *means = static_cast<const T*>(a.norm.mean),
             *rstds = static_cast<const T*>(a.norm.rstd);
  parallel_for(K, [&](Index k) {
    const double rstd = static_cast<double>(rstds[k]), scale = static_cast<double>(gamma[k]) * rstd;
    const double sum = static_cast<double>(db[k]), off = patches.b(k) - static_cast<double>(means[k]);
    double product = off * sum;  // the sum of g (u - mean)
    for (Index i = 0; i < L; ++i) product += patches.w(k, i) * static_cast<double>(dw[k * L + i]);
    const double n = patches.outputs(), slope = -scale * rstd * rstd * product / n, shift = -scale * sum / n;
    static_cast<T*>(a.norm.dgamma)[k] = static_cast<T>(product * rstd);
    static_cast<T*>(a.norm.dbeta)[k] = static_cast<T>(sum);
    const auto dense = [&](Index i, double total) {  // of what depends on u alone
      return slope * (patches.product(k, i) + off * total) + shift * total;
    };
    const bool training = a.norm.training;
    for (Index i = 0; i < L; ++i) {
      const double sparse = scale * static_cast<double>(dw[k * L + i]);
      static_cast<T*>(a.dw)[k * L + i] = static_cast<T>(sparse + (training ? dense(i, patches.sum(i)) : 0));
    }
    if (a.db != nullptr) static_cast<T*>(a.db)[k] = static_cast<T>(scale * sum + (training ? dense(L, n) : 0));
  });
}

template <class T>
void fwd_of(const Conv2dBatchNorm2dReluMaxPool2dFwdArgs& a) {
  if (takes_gram<T>(a.conv.shape)) return fwd_by_gram<T>(a);
  const Workspace u = workspace_of<T>(a.norm.rows * a.norm.channels);
  Conv2dFwdArgs conv = a.conv;
  BatchNorm2dFwdArgs norm = a.norm;
  norm.x = conv.y = u.as<T>();
  conv2d_fwd(conv);
  batch_norm2d_relu_max_pool2d_fwd({norm, a.argmax, a.map});
}

template <class T>
void bwd_of(const Conv2dBatchNorm2dReluMaxPool2dBwdArgs& a) {
  if (takes_gram<T>(a.conv.shape)) return bwd_by_gram<T>(a);
  const Index size = a.norm.rows * a.norm.channels;
  const Workspace u = workspace_of<T>(size), du = workspace_of<T>(size);
  Conv2dFwdArgs conv = a.conv;
  BatchNorm2dBwdArgs norm = a.norm;
  norm.x = conv.y = u.as<T>();
  norm.dx = du.as<T>();
  conv2d_fwd(conv);
  batch_norm2d_relu_max_pool2d_bwd({norm, a.argmax, a.map, a.argmax_valid});
  if (!*a.argmax_valid) return;
  conv2d_wgrad({norm.dx, a.conv.x, a.dw, a.conv.shape, a.conv.dtype});
  if (a.db != nullptr) conv2d_bgrad({norm.dx, a.db, a.norm.rows, a.norm.channels, a.conv.dtype});
}

void fwd(const Conv2dBatchNorm2dReluMaxPool2dFwdArgs& a) {
  with_dtype(a.conv.dtype, [&]<class T>(T) { fwd_of<T>(a); });
}

void bwd(const Conv2dBatchNorm2dReluMaxPool2dBwdArgs& a) {
  with_dtype(a.conv.dtype, [&]<class T>(T) { bwd_of<T>(a); });
}

const Register kFwd{conv2d_batch_norm2d_relu_max_pool2d_fwd, kIsa, fwd};
const Register kBwd{conv2d_batch_norm2d_relu_max_pool2d_bwd, kIsa, bwd};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
