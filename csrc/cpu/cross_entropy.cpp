// cross_entropy
//   fwd: loss = sum over rows and classes of -q log p / D, p = softmax(logits), and in the same pass its gradient
//        saved = grad_scale (p sum(q) - q) / D
//   bwd: dlogits = scale * saved
// where for class ids  q = weight * ((1 - s) [class is the id] + s / classes), s the label smoothing;
//                      D = the summed weight of the ids not ignored
// and for probabilities q = weight * ((1 - s) target + s / classes); D = rows
// Without a row that counts, loss and gradient are 0.
// Layout: logits (rows, classes). Work: chunks of rows fixed by the shape in parallel, their losses added in order.
// Numerics: the row's maximum is subtracted; arithmetic and sums in double. Classes with q = 0 add nothing, also where
// log p is -inf. Overwrites.
#include <cmath>

#include "core/dispatch.hpp"
#include "cpu/parallel.hpp"
#include "cpu/workspace.hpp"
#include "ops/kernels.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

using std::int64_t;

// -sum q log p of one row; dlogits = (p sum(q) - q) * inverse.
template <class T, class Q>
double row_loss(const T* x, T* dlogits, int64_t classes, const Q& q, double inverse) {
  T highest = x[0];
  for (int64_t c = 1; c < classes; ++c) highest = x[c] > highest ? x[c] : highest;
  const double top = static_cast<double>(highest);
  double sum = 0, q_sum = 0;
  for (int64_t c = 0; c < classes; ++c) {
    const double e = std::exp(static_cast<double>(x[c]) - top);
    dlogits[c] = static_cast<T>(e);
    sum += e;
  }
  const double log_sum = std::log(sum);
  double loss = 0;
  for (int64_t c = 0; c < classes; ++c) {
    const double target = q(c);
    q_sum += target;
    if (target != 0) loss -= target * (static_cast<double>(x[c]) - top - log_sum);
  }
  const double scale = q_sum / sum;
  for (int64_t c = 0; c < classes; ++c) {
    dlogits[c] = static_cast<T>((static_cast<double>(dlogits[c]) * scale - q(c)) * inverse);
  }
  return loss;
}

template <class T>
struct Problem {
  const CrossEntropyFwdArgs& a;
  const T* logits;
  const T* weight;
  double smooth;  // what smoothing gives to every class
  double keep;    // what it leaves to the target
  double divisor;

  explicit Problem(const CrossEntropyFwdArgs& args)
      : a(args),
        logits(static_cast<const T*>(a.logits)),
        weight(static_cast<const T*>(a.weight)),
        smooth(a.label_smoothing / static_cast<double>(a.classes)),
        keep(1 - a.label_smoothing),
        divisor(0) {
    if (!has_ids()) {
      divisor = static_cast<double>(a.rows);
      return;
    }
    for (int64_t i = 0; i < a.rows; ++i) {
      if (id(i) != a.ignore_index) divisor += weight_of(id(i));
    }
  }

  bool has_ids() const { return a.target_dtype == DType::kInt32 || a.target_dtype == DType::kInt64; }
  int64_t id(int64_t i) const {
    return a.target_dtype == DType::kInt32 ? static_cast<const std::int32_t*>(a.target)[i]
                                           : static_cast<const int64_t*>(a.target)[i];
  }
  double weight_of(int64_t c) const { return weight == nullptr ? 1.0 : static_cast<double>(weight[c]); }

  double row(int64_t i) const {
    const T* x = logits + i * a.classes;
    T* dlogits = static_cast<T*>(a.dlogits) + i * a.classes;
    if (!has_ids()) {
      const T* target = static_cast<const T*>(a.target) + i * a.classes;
      const auto q = [&](int64_t c) { return weight_of(c) * (keep * static_cast<double>(target[c]) + smooth); };
      return row_loss(x, dlogits, a.classes, q, a.grad_scale.value / divisor);
    }
    const int64_t t = id(i);
    if (t == a.ignore_index) {
      for (int64_t c = 0; c < a.classes; ++c) dlogits[c] = 0;
      return 0;
    }
    const auto q = [&](int64_t c) { return weight_of(c) * ((c == t ? keep : 0.0) + smooth); };
    return row_loss(x, dlogits, a.classes, q, a.grad_scale.value / divisor);
  }

  bool any_row_counts() const {
    if (!has_ids()) return a.rows > 0;
    for (int64_t i = 0; i < a.rows; ++i) {
      if (id(i) != a.ignore_index) return true;
    }
    return false;
  }
};

void fwd(const CrossEntropyFwdArgs& a) {
  with_dtype(a.dtype, [&]<class T>(T) {
    const Problem<T> problem(a);
    const int64_t rows_each = a.classes < 2048 ? 2048 / a.classes : 1, chunks = ceil_div(a.rows, rows_each);
    const Workspace scratch = workspace_of<double>(chunks);
    double* losses = scratch.as<double>();
    parallel_for(chunks, [&](int64_t i) {
      const Range r = part(a.rows, chunks, i);
      losses[i] = 0;
      for (int64_t row = r.begin; row < r.end; ++row) losses[i] += problem.row(row);
    });
    double loss = 0;
    for (int64_t i = 0; i < chunks; ++i) loss += losses[i];
    *static_cast<T*>(a.loss) = problem.any_row_counts() ? static_cast<T>(loss / problem.divisor) : T(0);
  });
}

void bwd(const CrossEntropyBwdArgs& a) {
  with_dtype(a.dtype, [&]<class T>(T) {
    const T* saved = static_cast<const T*>(a.saved);
    T* dlogits = static_cast<T*>(a.dlogits);
    const T scale = static_cast<T>(a.scale.value);
    parallel_ranges(a.size, kGrain, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) dlogits[i] = saved[i] * scale;
    });
  });
}

const Register kFwd{cross_entropy_fwd, kIsa, fwd};
const Register kBwd{cross_entropy_bwd, kIsa, bwd};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
