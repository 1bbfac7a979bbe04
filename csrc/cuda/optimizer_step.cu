// sgd_step, adam_step: the parameters of a whole network, updated in place; nothing where found_inf is set
//   SGD:  g = grad / grad_scale + weight_decay p;  velocity = momentum velocity + g;
//         p -= lr (nesterov ? g + momentum velocity : velocity), without momentum p -= lr g
//   Adam: g = grad / grad_scale + weight_decay p, or where it is decoupled g = grad / grad_scale and
//         p *= 1 - lr weight_decay;
//         m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
//         p -= lr / (1 - beta1^step) m / (sqrt(v) / sqrt(1 - beta2^step) + eps)
//   copy = p, rounded to 16 bits, where there are copies
// Layout: any shapes; params and state float32, grads float32 or 16-bit, copies 16-bit.
// Work: one launch for kMostTensors tensors (tensor_table.cuh); a block of 256 threads takes kChunk elements of one
// tensor, a thread four at a time, with one access to each array where all of them begin at a multiple of 16 bytes.
// Bound by memory: Adam makes 7 transfers an element, and one more for a copy.
// Launch bounds: 256 threads.
// Numerics: float32; the factors that lr, step and grad_scale make are computed in double, once a block; 1 - beta^step
// as -expm1(step log(beta)), exact to float32 for the first step and for the millionth.
// Source: D. Kingma, J. Ba, "Adam", 2015; I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", 2019;
// order of operations as torch.optim.
// Measured: not measured.
#include <cmath>

#include "cuda/dtype.cuh"
#include "cuda/elementwise.cuh"
#include "cuda/number.cuh"
#include "cuda/tensor_table.cuh"
#include "ops/kernels.hpp"

namespace stapes::cuda {
namespace {

using std::int64_t;

constexpr int kThreads = 256, kUnit = 4, kMostTensors = 64, kChunk = 4 * kThreads * kUnit;
using Table = TensorTable<StepTensor, kMostTensors, kChunk>;

// A rule has what the host knows, Factors (in shared memory, written by a few threads once in a block), and update().
struct Sgd {
  Number<double> lr, grad_scale;
  float momentum, decay;
  bool nesterov;

  struct Factors {
    float lr, unscale;
  };
  __device__ void prepare(Factors& f) const {
    if (threadIdx.x == 0) {
      f.lr = static_cast<float>(value_of(lr));
      f.unscale = static_cast<float>(1 / value_of(grad_scale));
    }
  }
  __device__ void update(const Factors& f, bool has_velocity, float grad, float& p, float& velocity, float&) const {
    const float g = f.unscale * grad + decay * p;
    if (!has_velocity) {
      p -= f.lr * g;
      return;
    }
    velocity = momentum * velocity + g;
    p -= f.lr * (nesterov ? g + momentum * velocity : velocity);
  }
};

struct Adam {
  Number<double> step, lr, grad_scale;
  double log_beta1, log_beta2, weight_decay;
  float beta1, rest1, beta2, rest2, eps, l2;
  bool decoupled;

  explicit Adam(const AdamStepArgs& a)
      : step(a.step),
        lr(a.lr),
        grad_scale(a.grad_scale),
        log_beta1(std::log(a.beta1)),
        log_beta2(std::log(a.beta2)),
        weight_decay(a.weight_decay),
        beta1(static_cast<float>(a.beta1)),
        rest1(static_cast<float>(1 - a.beta1)),
        beta2(static_cast<float>(a.beta2)),
        rest2(static_cast<float>(1 - a.beta2)),
        eps(static_cast<float>(a.eps)),
        l2(static_cast<float>(a.decoupled ? 0 : a.weight_decay)),
        decoupled(a.decoupled) {}

  struct Factors {
    float rate, correction, keep, unscale;
  };
  // Two warps, one for each power.
  __device__ void prepare(Factors& f) const {
    if (threadIdx.x == 0) {
      f.rate = static_cast<float>(value_of(lr) / -expm1(value_of(step) * log_beta1));
      f.unscale = static_cast<float>(1 / value_of(grad_scale));
    } else if (threadIdx.x == 32) {
      f.correction = static_cast<float>(1 / sqrt(-expm1(value_of(step) * log_beta2)));
      f.keep = static_cast<float>(decoupled ? 1 - value_of(lr) * weight_decay : 1);
    }
  }
  __device__ void update(const Factors& f, bool, float grad, float& p, float& m, float& v) const {
    const float g = f.unscale * grad + l2 * p;
    m = beta1 * m + rest1 * g;
    v = beta2 * v + rest2 * g * g;
    p = f.keep * p - f.rate * m / (sqrtf(v) * f.correction + eps);
  }
};

__device__ bool all_aligned(const StepTensor& t) {
  return is_aligned(t.param) && is_aligned(t.grad) && is_aligned(t.first) && is_aligned(t.second) && is_aligned(t.copy);
}

// Grad: the dtype of the gradients. `bfloat_copies`: of the copies, else float16.
template <class Grad, class Rule>
__global__ void __launch_bounds__(kThreads)
    step_kernel(const Table table, const Rule rule, const std::int32_t* found_inf, bool bfloat_copies) {
  __shared__ typename Rule::Factors shared;
  if (found_inf != nullptr && *found_inf != 0) return;
  rule.prepare(shared);
  __syncthreads();
  const typename Rule::Factors factors = shared;
  int64_t begin, end;
  const StepTensor& t = table.of_block(begin, end);
  const bool whole = all_aligned(t);
  float *param = static_cast<float*>(t.param), *first = static_cast<float*>(t.first),
        *second = static_cast<float*>(t.second);
  for (int64_t at = begin + static_cast<int>(threadIdx.x) * kUnit; at < end; at += kThreads * kUnit) {
    const int n = unit_size<kUnit>(end, at);
    float p[kUnit], g[kUnit], a[kUnit] = {}, b[kUnit] = {};
    load_unit<kUnit>(static_cast<const Grad*>(t.grad) + at, n, whole, g);
    load_unit<kUnit>(param + at, n, whole, p);
    if (first != nullptr) load_unit<kUnit>(first + at, n, whole, a);
    if (second != nullptr) load_unit<kUnit>(second + at, n, whole, b);
#pragma unroll
    for (int i = 0; i < kUnit; ++i) rule.update(factors, first != nullptr, g[i], p[i], a[i], b[i]);
    store_unit<kUnit>(param + at, n, whole, p);
    if (first != nullptr) store_unit<kUnit>(first + at, n, whole, a);
    if (second != nullptr) store_unit<kUnit>(second + at, n, whole, b);
    if (t.copy == nullptr) continue;
    if (bfloat_copies) {
      store_unit<kUnit>(static_cast<bfloat16*>(t.copy) + at, n, whole, p);
    } else {
      store_unit<kUnit>(static_cast<half*>(t.copy) + at, n, whole, p);
    }
  }
}

template <class Args, class Rule>
void step(const Args& a, const Rule& rule, Stream stream) {
  with_cuda_dtype(a.grad_dtype, [&]<class Grad>(Grad) {
    for_tables<kMostTensors, kChunk>(a.tensors, a.count, [&](const Table& table, unsigned blocks) {
      launch(step_kernel<Grad, Rule>, blocks, kThreads, 0, stream, table, rule, a.found_inf,
             a.copy_dtype == DType::kBFloat16);
    });
  });
}

}  // namespace

void sgd_step(const SgdStepArgs& a, Stream stream) {
  const Sgd rule{a.lr, a.grad_scale, static_cast<float>(a.momentum), static_cast<float>(a.weight_decay), a.nesterov};
  step(a, rule, stream);
}

void adam_step(const AdamStepArgs& a, Stream stream) { step(a, Adam(a), stream); }

}  // namespace stapes::cuda
