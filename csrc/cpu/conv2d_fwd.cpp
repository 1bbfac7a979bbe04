// y[n,p,q,k] = relu(b[k] + sum_{r,s,c} x[n, p*stride_h + r*dil_h - pad_top, q*stride_w + s*dil_w - pad_left, c]
//                                      * w[k,r,s,c])
// x (N,H,W,C), w (K,R,S,C/groups), y (N,P,Q,K); any stride, padding, dilation and groups; relu and b where asked for.
// Work: by dense.hpp, winograd.hpp or direct.hpp, as choice.hpp says. 1x1 with stride 1, and so Linear, is taken as one
// row of N*H*W pixels.
// Numerics: those of direct.hpp, beginning with the bias, or of winograd.hpp or dense.hpp. Overwrites.
#include "core/dispatch.hpp"
#include "cpu/choice.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

void fwd(const Conv2dFwdArgs& a) {
  const Conv2dShape shape = flatten_pointwise(a.shape);
  with_dtype(a.dtype, [&]<class T>(T) {
    if (is_narrow<T>(shape, shape.K / shape.groups)) return conv2d_fwd.variant(Isa::kV3)(a);
    const auto *x = static_cast<const T*>(a.x), *w = static_cast<const T*>(a.w), *b = static_cast<const T*>(a.b);
    switch (choose_fwd<T>(shape)) {
      case Conv::kDense: return DenseForward<T>(Dense(shape), a).run();
      case Conv::kWinograd: return Winograd<T>::forward(x, w, shape).write(b, a.relu, static_cast<T*>(a.y));
      case Conv::kDirect: break;
    }
    const Forward<T> forward(x, w, b, shape, a.relu);
    const Grid& g = forward.conv().grid;
    const Index K = a.shape.K;
    run_direct(forward.conv(), Output<T>{static_cast<T*>(a.y), g.Q * K, K}, g.P * g.Q * K);
  });
}

const Register kFwd{conv2d_fwd, kIsa, fwd};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
