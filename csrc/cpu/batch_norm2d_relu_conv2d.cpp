// batch_norm2d_relu_conv2d: batch_norm2d, ReLU and a convolution of the result, which is never written
//   fwd: z = (x - mean) * scale + shift as batch_norm2d's y, y = conv2d(max(0, z), w, b)
//        kept = (mean, scale, shift, rstd), from which the backward makes z again
//   bwd: g = dgrad of dy where z > 0, else 0 (NaN passes); dx, dgamma and dbeta are batch_norm2d's of g;
//        dw is the wgrad of dy and max(0, z), db the sum of dy
// Layout as conv2d; any stride, padding (of max(0, z)), dilation and groups.
// Work: 1x1 and depthwise convolutions read x through norm_relu.hpp. Backward, block by block, they add to dw, compute
// g into dx, and add to the sums of batch normalisation, while all of it is in the cache; a second pass turns g into
// dx. Other convolutions get max(0, z) in scratch memory, and their own kernels.
// Numerics: statistics and coefficients as batch_norm2d, convolutions as conv2d. Sums of 16 pixels in T, these in
// double. All overwrite.
// Source: S. Ioffe, C. Szegedy, "Batch Normalization", 2015.
#include "core/dispatch.hpp"
#include "cpu/batch_norm2d.hpp"
#include "cpu/choice.hpp"
#include "cpu/dgrad_phase.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

template <class T>
class Rectified {  // max(0, z) in scratch memory
 public:
  Rectified(const T* x, Index pixels, Index C, const NormRelu<T>& norm) : memory_(workspace_of<T>(pixels * C)) {
    T* y = memory_.template as<T>();
    parallel_ranges(pixels, ceil_div(kGrain, C),
                    [&](Index begin, Index end) { norm.copy(x + begin * C, end - begin, C, y + begin * C); });
  }

  const T* data() const { return memory_.template as<T>(); }

 private:
  Workspace memory_;
};

template <class T>
void fwd_of(const BatchNorm2dReluConv2dFwdArgs& a) {
  const Index C = a.norm.channels;
  T* kept = static_cast<T*>(a.kept);
  prepare(a.norm, RowChunks(a.norm.rows, C), Normalisation<T>{kept, kept + C, kept + 2 * C});
  const NormReluOf<T> coefficients(kept, C);
  const NormRelu<T> norm = coefficients.reader();

  const auto *x = static_cast<const T*>(a.norm.x), *w = static_cast<const T*>(a.conv.w),
             *b = static_cast<const T*>(a.conv.b);
  const Conv2dShape shape = flatten_pointwise(a.conv.shape);
  if (choose_fwd<T>(shape) != Conv::kDirect) {
    const Rectified<T> y(x, a.norm.rows, C, norm);
    Conv2dFwdArgs conv = a.conv;
    conv.x = y.data();
    return conv2d_fwd(conv);
  }
  const Forward<T> forward(x, w, b, shape, false, &norm);
  const Grid& g = forward.conv().grid;
  run_direct(forward.conv(), Output<T>{static_cast<T*>(a.conv.y), g.Q * shape.K, shape.K}, g.P * g.Q * shape.K);
}

// Per channel the sums of g and of g * (x - mean), of pieces that are added up in their order.
template <class T>
class GradientSums {
 public:
  GradientSums(Index pieces, Index C)
      : C_(C),
        pieces_(pieces),
        sums_(workspace_of<double>((pieces + 1) * 2 * C)),
        some_(workspace_of<T>(pieces * 2 * C)) {
    for (Index i = 0; i < (pieces + 1) * 2 * C; ++i) sums_.template as<double>()[i] = 0;
  }

  // Adds pixels: g is dz where z > 0.
  void add(Index piece, const T* dz, const T* x, Index pixels, const NormRelu<T>& norm) const {
    T* some = some_.template as<T>() + piece * 2 * C_;
    double* sums = sums_.template as<double>() + (piece + 1) * 2 * C_;
    for (Index first = 0; first < pixels; first += kSummed, dz += kSummed * C_, x += kSummed * C_) {
      const Index n = least(kSummed, pixels - first);
      for_each_channel<T>(C_, [&]<class V>(V, Index c) {
        const auto at = norm.template at<V>(c);
        V sum{}, product{};
        for (Index i = 0; i < n; ++i) {
          const V value = load_as<V>(x + i * C_ + c);
          const V g = at.normal(value) <= V{} ? V{} : load_as<V>(dz + i * C_ + c);
          sum += g;
          product += g * (value - at.center);
        }
        store_as(some + c, sum);
        store_as(some + C_ + c, product);
      });
      for (Index i = 0; i < 2 * C_; ++i) sums[i] += static_cast<double>(some[i]);
    }
  }

  // (2, C), once all is added.
  const double* total() const {
    double *all = sums_.template as<double>(), *piece = all + 2 * C_;
    for (Index c = 0; c < 2 * C_; ++c) all[c] = 0;
    for (Index i = 0; i < pieces_; ++i, piece += 2 * C_)
      for (Index c = 0; c < 2 * C_; ++c) all[c] += piece[c];
    return all;
  }

 private:
  static constexpr Index kSummed = 16;  // pixels, in T

  Index C_, pieces_;
  Workspace sums_, some_;
};

template <class T>
class Backward {
 public:
  explicit Backward(const BatchNorm2dReluConv2dBwdArgs& a)
      : a_(a),
        C_(a.norm.channels),
        shape_(flatten_pointwise(a.conv.shape)),
        x_(static_cast<const T*>(a.norm.x)),
        dy_(static_cast<const T*>(a.conv.dy)),
        dx_(static_cast<T*>(a.norm.dx)),
        dw_(static_cast<T*>(a.dw)),
        coefficients_(static_cast<const T*>(a.kept), C_),
        norm_(coefficients_.reader()) {}

  void run() const {
    const Wgrad chosen = choose_wgrad<T>(shape_);
    const bool direct = choose_dgrad<T>(shape_) == Conv::kDirect;
    if (chosen == Wgrad::kGathered && direct && is_row_of_pixels(shape_)) {
      pointwise();
    } else if (chosen == Wgrad::kDepthwise && row_by_row()) {
      depthwise();
    } else {
      apart();
    }
    if (a_.db != nullptr) conv2d_bgrad({dy_, a_.db, pixels_of_y(), shape_.K, a_.conv.dtype});
  }

 private:
  // Where a row of dx needs no rows of dy but those around it, and there are as many.
  bool row_by_row() const {
    const Window2d& w = shape_.window;
    return w.stride_h == 1 && w.stride_w == 1 && w.P == shape_.H;
  }

  Index pixels_of_y() const { return shape_.N * shape_.window.P * shape_.window.Q; }

  void pointwise() const {
    const Phase<T> phase(a_.conv, shape_, 0, 0);
    const DirectConv<T>& conv = phase.conv();
    const Bands bands(conv.grid, kPatchTarget, needs_slack(conv));
    const Segments<T> segments(conv, bands);
    const GatheredWgrad<T> wgrad(x_, dy_, shape_);
    const GradientSums<T> sums(wgrad.chunks(), C_);
    wgrad.run(dw_, norm_, [&](Index chunk, Index first, Index count) {
      T* dz = dx_ + first * C_;
      run_band(conv, bands, Band{0, 0, 1, first, count}, dy_ + first * shape_.K, segments, Output<T>{dz, 0, C_},
               Range{0, unit_count(conv)});
      sums.add(chunk, dz, x_ + first * C_, count, norm_);
    });
    finish_dx(sums);
  }

  void depthwise() const {
    const Phase<T> phase(a_.conv, shape_, 0, 0);
    const DirectConv<T>& conv = phase.conv();
    const Depthwise<T> dgrad(conv.grid), wgrad(forward_grid(shape_));
    const GradientSums<T> sums(wgrad.pieces(), C_);
    wgrad.wgrad(x_, dy_, dw_, norm_, [&](Index piece, Index row) {
      const Index first = row * shape_.W * C_;
      dgrad.forward_row(dy_, row, conv.panels, conv.bias, false, dx_ + first, C_, AsItLies<T>{});
      sums.add(piece, dx_ + first, x_ + first, shape_.W, norm_);
    });
    finish_dx(sums);
  }

  void apart() const {
    {
      const Rectified<T> y(x_, a_.norm.rows, C_, norm_);
      conv2d_wgrad({dy_, y.data(), dw_, a_.conv.shape, a_.conv.dtype});
    }
    conv2d_dgrad(a_.conv);
    const Index rows = a_.norm.rows, pieces = ceil_div(rows * C_, kGrain);
    const GradientSums<T> sums(pieces, C_);
    parallel_for(pieces, [&](Index i) {
      const Range piece = part(rows, pieces, i);
      sums.add(i, dx_ + piece.begin * C_, x_ + piece.begin * C_, piece.end - piece.begin, norm_);
    });
    finish_dx(sums);
  }

  // Turns dz, in dx, into dx. Backwards: what came last may still be in the cache.
  void finish_dx(const GradientSums<T>& sums) const {
    const Workspace scratch = workspace_of<T>(4 * C_);
    T* p = scratch.as<T>();
    const InputGradient<T> g{p, p + C_, p + 2 * C_, p + 3 * C_};
    const double* total = sums.total();
    finish(a_.norm, total, total + C_, g);
    const Index rows = a_.norm.rows, pieces = ceil_div(rows * C_, kGrain);
    parallel_for(pieces, [&](Index i) {
      const Range piece = part(rows, pieces, pieces - 1 - i);
      if (a_.norm.training) {
        input_gradient<true>(piece, g);
      } else {
        input_gradient<false>(piece, g);
      }
    });
  }

  template <bool kTraining>
  void input_gradient(Range pixels, const InputGradient<T>& g) const {
    for (Index i = pixels.begin * C_; i < pixels.end * C_; i += C_) {
      for_each_channel<T>(C_, [&]<class V>(V, Index c) {
        const auto at = norm_.template at<V>(c);
        const V x = load_as<V>(x_ + i + c);
        V dx = load_as<V>(g.scale + c) * (at.normal(x) <= V{} ? V{} : load_as<V>(dx_ + i + c));
        if constexpr (kTraining) dx += load_as<V>(g.slope + c) * (x - at.center) + load_as<V>(g.shift + c);
        store_as(dx_ + i + c, dx);
      });
    }
  }

  const BatchNorm2dReluConv2dBwdArgs& a_;
  Index C_;
  Conv2dShape shape_;
  const T *x_, *dy_;
  T *dx_, *dw_;
  NormReluOf<T> coefficients_;
  NormRelu<T> norm_;
};

void fwd(const BatchNorm2dReluConv2dFwdArgs& a) {
  with_dtype(a.norm.dtype, [&]<class T>(T) { fwd_of<T>(a); });
}

void bwd(const BatchNorm2dReluConv2dBwdArgs& a) {
  with_dtype(a.norm.dtype, [&]<class T>(T) { Backward<T>(a).run(); });
}

const Register kFwd{batch_norm2d_relu_conv2d_fwd, kIsa, fwd};
const Register kBwd{batch_norm2d_relu_conv2d_bwd, kIsa, bwd};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
