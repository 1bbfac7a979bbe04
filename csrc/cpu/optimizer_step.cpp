// sgd_step, adam_step: the parameters of a whole network, updated in place; nothing where found_inf is set
//   SGD:  g = grad / grad_scale + weight_decay p;  velocity = momentum velocity + g;
//         p -= lr (nesterov ? g + momentum velocity : velocity), without momentum p -= lr g
//   Adam: g = grad / grad_scale + weight_decay p, or where it is decoupled g = grad / grad_scale and p *= 1 - lr
//   weight_decay;
//         m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
//         p -= lr / (1 - beta1^step) m / (sqrt(v) / sqrt(1 - beta2^step) + eps)
// Work: each tensor is cut into blocks of kGrain elements; the blocks of all tensors are one parallel loop. Bound by
// memory: Adam makes 7 transfers an element.
// Numerics: in the dtype of the parameters, factors computed in double.
// Source: D. Kingma, J. Ba, "Adam", 2015; I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", 2019;
// order of operations as torch.optim.
#include <cmath>

#include "core/dispatch.hpp"
#include "cpu/parallel.hpp"
#include "cpu/workspace.hpp"
#include "ops/kernels.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

using std::int64_t;

// f(tensor, begin, end) for every block of every tensor.
template <class F>
void for_blocks(const StepTensor* tensors, int64_t count, const F& f) {
  const Workspace scratch = workspace_of<int64_t>(count + 1);
  int64_t* first_block = scratch.as<int64_t>();
  first_block[0] = 0;
  for (int64_t t = 0; t < count; ++t) first_block[t + 1] = first_block[t] + ceil_div(tensors[t].size, kGrain);
  parallel_for(first_block[count], [&](int64_t block) {
    int64_t low = 0, high = count;  // first_block[low] <= block < first_block[high]
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      (first_block[middle] <= block ? low : high) = middle;
    }
    const StepTensor& tensor = tensors[low];
    const Range r = part(tensor.size, first_block[low + 1] - first_block[low], block - first_block[low]);
    f(tensor, r.begin, r.end);
  });
}

template <class T>
struct Sgd {
  T lr, momentum, decay, unscale;

  void plain(T* __restrict p, const T* __restrict grad, int64_t n) const {
    for (int64_t i = 0; i < n; ++i) p[i] -= lr * (unscale * grad[i] + decay * p[i]);
  }
  template <bool kNesterov>
  void with_momentum(T* __restrict p, const T* __restrict grad, T* __restrict velocity, int64_t n) const {
    for (int64_t i = 0; i < n; ++i) {
      const T g = unscale * grad[i] + decay * p[i];
      velocity[i] = momentum * velocity[i] + g;
      p[i] -= lr * (kNesterov ? g + momentum * velocity[i] : velocity[i]);
    }
  }
};

template <class T>
struct Adam {
  T beta1, rest1, beta2, rest2, rate, correction, eps, l2, keep, unscale;

  explicit Adam(const AdamStepArgs& a)
      : beta1(static_cast<T>(a.beta1)),
        rest1(static_cast<T>(1 - a.beta1)),
        beta2(static_cast<T>(a.beta2)),
        rest2(static_cast<T>(1 - a.beta2)),
        rate(static_cast<T>(a.lr.value / (1 - std::pow(a.beta1, a.step.value)))),
        correction(static_cast<T>(1 / std::sqrt(1 - std::pow(a.beta2, a.step.value)))),
        eps(static_cast<T>(a.eps)),
        l2(static_cast<T>(a.decoupled ? 0 : a.weight_decay)),
        keep(static_cast<T>(a.decoupled ? 1 - a.lr.value * a.weight_decay : 1)),
        unscale(static_cast<T>(1 / a.grad_scale.value)) {}

  void operator()(T* __restrict p, const T* __restrict grad, T* __restrict m, T* __restrict v, int64_t n) const {
    for (int64_t i = 0; i < n; ++i) {
      const T g = unscale * grad[i] + l2 * p[i];
      m[i] = beta1 * m[i] + rest1 * g;
      v[i] = beta2 * v[i] + rest2 * g * g;
      p[i] = keep * p[i] - rate * m[i] / (std::sqrt(v[i]) * correction + eps);
    }
  }
};

bool skipped(const std::int32_t* found_inf) { return found_inf != nullptr && *found_inf != 0; }

void sgd(const SgdStepArgs& a) {
  if (skipped(a.found_inf)) return;
  with_dtype(a.dtype, [&]<class T>(T) {
    const Sgd<T> rule{static_cast<T>(a.lr.value), static_cast<T>(a.momentum), static_cast<T>(a.weight_decay),
                      static_cast<T>(1 / a.grad_scale.value)};
    for_blocks(a.tensors, a.count, [&](const StepTensor& t, int64_t begin, int64_t end) {
      T* p = static_cast<T*>(t.param) + begin;
      const T* grad = static_cast<const T*>(t.grad) + begin;
      if (t.first == nullptr) return rule.plain(p, grad, end - begin);
      T* velocity = static_cast<T*>(t.first) + begin;
      if (a.nesterov) return rule.template with_momentum<true>(p, grad, velocity, end - begin);
      rule.template with_momentum<false>(p, grad, velocity, end - begin);
    });
  });
}

void adam(const AdamStepArgs& a) {
  if (skipped(a.found_inf)) return;
  with_dtype(a.dtype, [&]<class T>(T) {
    const Adam<T> rule(a);
    for_blocks(a.tensors, a.count, [&](const StepTensor& t, int64_t begin, int64_t end) {
      rule(static_cast<T*>(t.param) + begin, static_cast<const T*>(t.grad) + begin, static_cast<T*>(t.first) + begin,
           static_cast<T*>(t.second) + begin, end - begin);
    });
  });
}

const Register kSgd{sgd_step, kIsa, sgd};
const Register kAdam{adam_step, kIsa, adam};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
