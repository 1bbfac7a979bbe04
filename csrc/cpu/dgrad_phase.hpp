// The data gradient put in the form that direct.hpp computes: the rows h = a + stride_h * i of one phase a use the same
// r, and read dy at p = i + (a + pad_top - r*dil_h) / stride_h: so each of the stride_h * stride_w phases of dx is a
// convolution of dy with stride 1 and a part of the taps, with C as the output channels. A phase that no tap reaches
// gets the bias.
#pragma once

#include "cpu/conv2d.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

// The taps r = last, last - period, ... of one axis that reach the phase; last first, so that the positions p - i of dy
// that they read ascend. They are equally far apart: r and r' reach the same phase where stride divides (r - r') * dil.
struct PhaseAxis {
  TapAxis offsets{0, 1, 0};  // p - i
  Index last = 0, period = 0;

  PhaseAxis(Index phase, Index kernel, Index stride, Index dil, Index pad) {
    for (Index r = kernel - 1; r >= 0; --r) {
      const Index reach = phase + pad - r * dil;
      if (reach % stride != 0) continue;
      if (offsets.count == 0) {
        offsets.first = reach / stride;
        last = r;
      } else if (offsets.count == 1) {
        offsets.step = reach / stride - offsets.first;
        period = last - r;
      }
      ++offsets.count;
    }
  }
  Index tap(Index i) const { return last - i * period; }
};

template <class T>
class Phase {
 public:
  Phase(const Conv2dDgradArgs& a, const Conv2dShape& shape, Index phase_h, Index phase_w)
      : shape_(shape),
        rows_(phase_h, shape.window.kernel_h, shape.window.stride_h, shape.window.dil_h, shape.window.pad_top),
        cols_(phase_w, shape.window.kernel_w, shape.window.stride_w, shape.window.dil_w, shape.window.pad_left),
        conv_(describe(static_cast<const T*>(a.dy), phase_h, phase_w)),
        packed_(workspace_of<T>(packed_elements(conv_) + bias_elements(conv_))) {
    T *panels = packed_.template as<T>(), *bias = panels + packed_elements(conv_);
    pack(static_cast<const T*>(a.w), panels);
    pack_bias(conv_, static_cast<const T*>(a.b), bias);
    conv_.panels = panels;
    conv_.bias = bias;
  }

  const DirectConv<T>& conv() const { return conv_; }

 private:
  DirectConv<T> describe(const T* dy, Index phase_h, Index phase_w) const {
    const Window2d& w = shape_.window;
    const Index count = rows_.offsets.count * cols_.offsets.count;
    const TapAxis none{0, 1, 1};
    const Grid grid{shape_.N,
                    w.P,
                    w.Q,
                    shape_.K,
                    ceil_div(shape_.H - phase_h, w.stride_h),
                    ceil_div(shape_.W - phase_w, w.stride_w),
                    1,
                    1,
                    count > 0 ? rows_.offsets : none,
                    count > 0 ? cols_.offsets : none};
    return {.input = dy,
            .grid = grid,
            .groups = shape_.groups,
            .C = shape_.K / shape_.groups,
            .K = shape_.C / shape_.groups,
            .tap_count = count,
            .depthwise = is_depthwise(shape_)};
  }

  // The weight's place (r, s) of the t-th tap, in w as (K, R*S, C).
  Index place(Index t) const {
    const Index cols = cols_.offsets.count;
    return rows_.tap(t / cols) * shape_.window.kernel_w + cols_.tap(t % cols);
  }

  void pack(const T* w, T* panels) const {
    const Index RS = shape_.window.kernel_h * shape_.window.kernel_w;
    if (conv_.depthwise) {
      pack_depthwise(conv_, panels, [&](Index t, Index c) { return w[c * RS + place(t)]; });
      return;
    }
    pack_panels(conv_, panels, [&](Index g, Index l, Index c, Index n, T* to) {
      const Index k = g * conv_.C + l % conv_.C;
      const T* from = w + (k * RS + place(l / conv_.C)) * conv_.K + c;
      for (Index i = 0; i < n; ++i) to[i] = from[i];
    });
  }

  Conv2dShape shape_;
  PhaseAxis rows_, cols_;
  DirectConv<T> conv_;
  Workspace packed_;
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
