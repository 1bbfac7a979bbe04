// dx[n,h,w,c] = b[c] + sum_{r,s,k} dy[n,p,q,k] * w[k,r,s,c] over the (p, r) with p*stride_h + r*dil_h - pad_top = h,
// and likewise (q, s) for w; b only in a transposed convolution.
// dy (N,P,Q,K), w (K,R,S,C/groups), dx (N,H,W,C); any stride, padding, dilation and groups.
// Work: phases of dx (dgrad_phase.hpp), each by direct.hpp; by winograd.hpp or dense.hpp instead where choice.hpp says
// so.
// Numerics: those of direct.hpp, beginning with the bias, or of winograd.hpp or dense.hpp. Overwrites.
#include "core/dispatch.hpp"
#include "cpu/choice.hpp"
#include "cpu/dgrad_phase.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

// dx is the forward convolution of dy with the weights turned over, and C in the place of K.
template <class T>
void dgrad_winograd(const Conv2dDgradArgs& a) {
  const Conv2dShape& s = a.shape;
  const Window2d& w = s.window;
  const Grid grid{s.N, w.P, w.Q, s.K, s.H, s.W, 1, 1, {w.pad_top - 2, 1, 3}, {w.pad_left - 2, 1, 3}};
  const WinogradWeights<T> weights{static_cast<const T*>(a.w) + 8 * s.C, 1, 9 * s.C, -s.C};
  Winograd<T>(static_cast<const T*>(a.dy), grid, s.C, weights)
      .write(static_cast<const T*>(a.b), false, static_cast<T*>(a.dx));
}

template <class T>
void dgrad_dense(const Conv2dDgradArgs& a, const Conv2dShape& flat) {
  const Dense d(flat);
  OuterSum<T>{static_cast<const T*>(a.dy), static_cast<const T*>(a.w), static_cast<T*>(a.dx), d.M, d.K, d.C, d.K, 1}
      .run();
}

template <class T>
void dgrad_direct(const Conv2dDgradArgs& a, const Conv2dShape& s) {
  const Window2d& w = s.window;
  for (Index i = 0; i < w.stride_h && i < s.H; ++i)
    for (Index j = 0; j < w.stride_w && j < s.W; ++j) {
      const Phase<T> phase(a, s, i, j);
      T* origin = static_cast<T*>(a.dx) + (i * s.W + j) * s.C;
      run_direct(phase.conv(), Output<T>{origin, w.stride_h * s.W * s.C, w.stride_w * s.C}, s.H * s.W * s.C);
    }
}

void dgrad(const Conv2dDgradArgs& a) {
  const Conv2dShape shape = flatten_pointwise(a.shape);
  with_dtype(a.dtype, [&]<class T>(T) {
    if (is_narrow<T>(shape, shape.C / shape.groups)) return conv2d_dgrad.variant(Isa::kV3)(a);
    const Conv chosen = choose_dgrad<T>(shape);
    if (chosen == Conv::kDense && a.b == nullptr) return dgrad_dense<T>(a, shape);
    if (chosen == Conv::kWinograd) return dgrad_winograd<T>(a);
    dgrad_direct<T>(a, shape);
  });
}

const Register kDgrad{conv2d_dgrad, kIsa, dgrad};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
