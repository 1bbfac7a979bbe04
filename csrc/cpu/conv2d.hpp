// A forward convolution put in the form that direct.hpp computes: its grid, and weights and bias packed.
#pragma once

#include "cpu/direct.hpp"
#include "ops/kernels.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

// 1x1, stride 1, unpadded: the pixels of all images as one row.
inline Conv2dShape flatten_pointwise(const Conv2dShape& s) {
  const Window2d& w = s.window;
  const bool pointwise = w.kernel_h == 1 && w.kernel_w == 1 && w.stride_h == 1 && w.stride_w == 1 &&
                         w.pad_top + w.pad_bottom + w.pad_left + w.pad_right == 0;
  if (!pointwise || s.N == 0) return s;
  Conv2dShape flat = s;
  flat.W = flat.window.Q = s.N * s.H * s.W;
  flat.N = flat.H = flat.window.P = 1;
  return flat;
}

// What flatten_pointwise made flat.
inline bool is_row_of_pixels(const Conv2dShape& s) {
  const Window2d& w = s.window;
  return s.N == 1 && s.H == 1 && w.P == 1 && w.Q == s.W && w.kernel_h == 1 && w.kernel_w == 1 && w.stride_h == 1 &&
         w.stride_w == 1 && w.pad_top + w.pad_bottom + w.pad_left + w.pad_right == 0;
}

inline Grid forward_grid(const Conv2dShape& s) {
  const Window2d& w = s.window;
  return {s.N,
          s.H,
          s.W,
          s.C,
          w.P,
          w.Q,
          w.stride_h,
          w.stride_w,
          {-w.pad_top, w.dil_h, w.kernel_h},
          {-w.pad_left, w.dil_w, w.kernel_w}};
}

inline bool is_depthwise(const Conv2dShape& s) { return s.groups > 1 && s.groups == s.C && s.groups == s.K; }

// Panels of a dense convolution: for each group and block of its outputs, (depth, block). `row(g, l, k, n, to)` gives
// the weights of `n` outputs from the k-th on for the l-th of the depth.
template <class T, class F>
void pack_panels(const DirectConv<T>& conv, T* panels, const F& row) {
  const Blocks<T> blocks(conv.K);
  const Index depth = conv.depth();
  parallel_for(conv.groups * blocks.count, [&](Index unit) {
    const Index g = unit / blocks.count;
    const Range block = blocks.block(unit % blocks.count);
    const Index k0 = block.begin * kLanes<T>, width = (block.end - block.begin) * kLanes<T>;
    const Index used = least(width, conv.K - k0);
    T* to = panels + (g * blocks.padded() + k0) * depth;
    for (Index l = 0; l < depth; ++l, to += width) {
      row(g, l, k0, used, to);
      for (Index i = used; i < width; ++i) to[i] = T(0);
    }
  });
}

// The bias as the panels are padded; zeros where there is none.
template <class T>
void pack_bias(const DirectConv<T>& conv, const T* b, T* bias) {
  const Index K = conv.depthwise ? conv.groups : conv.K, padded = Blocks<T>(K).padded();
  for (Index g = 0; g < (conv.depthwise ? 1 : conv.groups); ++g)
    for (Index k = 0; k < padded; ++k) bias[g * padded + k] = b != nullptr && k < K ? b[g * K + k] : T(0);
}

// Depthwise weights as (tap, channel), channels padded to whole vectors. `from(tap, channel)` gives one.
template <class T, class F>
void pack_depthwise(const DirectConv<T>& conv, T* panels, const F& from) {
  const Index padded = Blocks<T>(conv.groups).padded();
  for (Index t = 0; t < conv.tap_count; ++t)
    for (Index c = 0; c < padded; ++c) panels[t * padded + c] = c < conv.groups ? from(t, c) : T(0);
}

template <class T>
Index packed_elements(const DirectConv<T>& conv) {
  return conv.depthwise ? conv.tap_count * Blocks<T>(conv.groups).padded()
                        : conv.groups * Blocks<T>(conv.K).padded() * conv.depth();
}

template <class T>
Index bias_elements(const DirectConv<T>& conv) {
  return conv.depthwise ? Blocks<T>(conv.groups).padded() : conv.groups * Blocks<T>(conv.K).padded();
}

template <class T>
class Forward {
 public:
  Forward(const T* x, const T* w, const T* b, const Conv2dShape& shape, bool relu, const NormRelu<T>* norm = nullptr)
      : conv_(describe(x, shape, relu, norm)), packed_(workspace_of<T>(packed_elements(conv_) + bias_elements(conv_))) {
    T *panels = packed_.template as<T>(), *bias = panels + packed_elements(conv_);
    const Index depth = conv_.depth();
    if (conv_.depthwise) {
      pack_depthwise(conv_, panels, [&](Index t, Index c) { return w[c * depth + t]; });
    } else {
      pack_panels(conv_, panels, [&](Index g, Index l, Index k, Index n, T* to) {
        const T* from = w + (g * conv_.K + k) * depth + l;
        for (Index i = 0; i < n; ++i) to[i] = from[i * depth];
      });
    }
    pack_bias(conv_, b, bias);
    conv_.panels = panels;
    conv_.bias = bias;
  }

  const DirectConv<T>& conv() const { return conv_; }

 private:
  static DirectConv<T> describe(const T* x, const Conv2dShape& s, bool relu, const NormRelu<T>* norm) {
    return {.input = x,
            .grid = forward_grid(s),
            .groups = s.groups,
            .C = s.C / s.groups,
            .K = s.K / s.groups,
            .tap_count = s.window.kernel_h * s.window.kernel_w,
            .depthwise = is_depthwise(s),
            .relu = relu,
            .norm = norm};
  }

  DirectConv<T> conv_;
  Workspace packed_;
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
