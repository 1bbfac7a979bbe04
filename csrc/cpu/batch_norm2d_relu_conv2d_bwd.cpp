// batch_norm2d_relu_conv2d, backward
//   g = dgrad of dy where z > 0, else 0 (NaN passes); dx, dgamma and dbeta are batch_norm2d's of g;
//   dw is the wgrad of dy and max(0, z), db the sum of dy. z is made from `kept`; see the forward.
// batch_norm2d_relu_conv2d_chain: several of these from the last on, each one's dx being the dy of the one before.
// Work: block by block, 1x1 and depthwise convolutions read x through norm_relu.hpp, add to dw, compute dgrad where dx
// will be, and add to the sums of batch normalisation, while all of it is in the cache (norm_gradient.hpp). dx needs
// those sums: it is made by a second pass, and in a chain where the block before reads it. Other convolutions have
// max(0, z) and dx in memory.
// Numerics: as batch_norm2d and conv2d. All overwrite.
// Source: S. Ioffe, C. Szegedy, "Batch Normalization", 2015.
#include <optional>

#include "core/dispatch.hpp"
#include "cpu/choice.hpp"
#include "cpu/dgrad_phase.hpp"
#include "cpu/norm_gradient.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

// Rows of a gradient (N, P, Q, K) that are made when they are asked for; those asked for together lie together.
template <class T>
class MadeRows {
 public:
  // `most` rows are asked for at a time.
  MadeRows(const PendingGradient<T>& dy, const Conv2dShape& s, Index most, int threads)
      : dy_(dy),
        P_(s.window.P),
        Q_(s.window.Q),
        K_(s.K),
        most_(least(most + kMoreRows, P_)),
        windows_(static_cast<std::size_t>(threads)),
        memory_(workspace_of<T>(threads * most_ * Q_ * K_)) {}

  // Rows [first, last] of an image.
  ImageRows<T> operator()(Index image, Index first, Index last, int thread) const {
    const Index row = Q_ * K_;
    T* rows = memory_.template as<T>() + thread * most_ * row;
    Window& w = windows_[static_cast<std::size_t>(thread)];
    if (w.image != image || first < w.begin || first > w.end) w = {image, first, first};
    if (last - w.begin >= most_) {
      std::memmove(static_cast<void*>(rows), rows + (first - w.begin) * row,
                   static_cast<std::size_t>((w.end - first) * row) * sizeof(T));
      w.begin = first;
    }
    if (w.end <= last) {
      dy_.take((image * P_ + w.end) * Q_, (last + 1 - w.end) * Q_, rows + (w.end - w.begin) * row);
      w.end = last + 1;
    }
    return {rows, w.begin * row};
  }

 private:
  static constexpr Index kMoreRows = 8;  // until those that are still needed must be moved

  struct Window {
    Index image = -1, begin = 0, end = 0;
  };

  const PendingGradient<T>& dy_;
  Index P_, Q_, K_, most_;
  mutable std::vector<Window> windows_;
  Workspace memory_;
};

// The same where the gradient is in memory.
template <class T>
struct GivenRows {
  const T* dy;
  Index image_elements;

  ImageRows<T> operator()(Index image, Index, Index, int) const { return {dy + image * image_elements, 0}; }
};

template <class T>
using Pending = std::optional<PendingGradient<T>>;

template <class T>
class Backward {
 public:
  // dz: memory for a map like x.
  Backward(const BatchNorm2dReluConv2dBwdArgs& a, T* dz)
      : a_(a),
        C_(a.norm.channels),
        shape_(flatten_pointwise(a.conv.shape)),
        x_(static_cast<const T*>(a.norm.x)),
        dz_(dz),
        dw_(static_cast<T*>(a.dw)),
        coefficients_(static_cast<const T*>(a.kept), C_),
        norm_(coefficients_.reader()) {}

  // The gradient of the output is what `behind` leaves to be made, or else that of the arguments; this block's dx is
  // left in `dx`.
  void run(const Pending<T>& behind, Pending<T>& dx) const {
    const Wgrad chosen = choose_wgrad<T>(shape_);
    const bool direct = choose_dgrad<T>(shape_) == Conv::kDirect;
    const bool pixels = chosen == Wgrad::kGathered && direct && is_row_of_pixels(shape_);
    const bool rows = chosen == Wgrad::kDepthwise && row_by_row();
    const bool made = behind && (pixels || (rows && shape_.window.P > 1)) && a_.db == nullptr;
    const T* dy = !behind ? static_cast<const T*>(a_.conv.dy) : made ? nullptr : behind->complete();
    const Index row = shape_.window.Q * shape_.K;
    if (pixels) {
      made ? pointwise(*behind, dx) : pointwise(GivenGradient<T>{dy, shape_.K}, dx);
    } else if (rows) {
      const int threads = num_threads();
      made ? depthwise(MadeRows<T>(*behind, shape_, rows_read(), threads), threads, dx)
           : depthwise(GivenRows<T>{dy, shape_.window.P * row}, threads, dx);
    } else {
      apart(dy, dx);
    }
    const Index outputs = shape_.N * shape_.window.P * shape_.window.Q;
    if (a_.db != nullptr) conv2d_bgrad({dy, a_.db, outputs, shape_.K, a_.conv.dtype});
  }

 private:
  // Where a row of dx needs no rows of dy but those around it, and there are as many.
  bool row_by_row() const {
    const Window2d& w = shape_.window;
    return w.stride_h == 1 && w.stride_w == 1 && w.P == shape_.H;
  }
  Index rows_read() const { return (shape_.window.kernel_h - 1) * shape_.window.dil_h + 1; }

  void leave(const GradientSums<T>& sums, Pending<T>& dx) const {
    dx.emplace(a_.norm, static_cast<const T*>(a_.kept), dz_, sums);
  }

  template <class Gradient>
  void pointwise(const Gradient& dy, Pending<T>& dx) const {
    const Phase<T> phase(a_.conv, shape_, 0, 0);
    const DirectConv<T>& conv = phase.conv();
    const Bands bands(conv.grid, kPatchTarget, needs_slack(conv));
    const Segments<T> segments(conv, bands);
    const GatheredWgrad<T> wgrad(x_, shape_);
    const GradientSums<T> sums(wgrad.chunks(), C_);
    wgrad.run(dy, dw_, norm_, [&](Index chunk, Index first, Index count, const T* rows) {
      T* dz = dz_ + first * C_;
      run_band(conv, bands, Band{0, 0, 1, first, count}, rows, segments, Output<T>{dz, 0, C_},
               Range{0, unit_count(conv)});
      sums.add(chunk, dz, x_ + first * C_, count, norm_);
    });
    leave(sums, dx);
  }

  template <class Rows>
  void depthwise(const Rows& dy, int threads, Pending<T>& dx) const {
    const Phase<T> phase(a_.conv, shape_, 0, 0);
    const DirectConv<T>& conv = phase.conv();
    const TapAxis& taps = conv.grid.rows;
    const Index P = shape_.window.P, W = shape_.W;
    const Depthwise<T> dgrad(conv.grid), wgrad(forward_grid(shape_));
    const GradientSums<T> sums(wgrad.pieces(), C_);
    wgrad.wgrad(x_, dw_, threads, norm_, [&](Index piece, Index i, int thread) {
      const Index image = i / P, p = i % P, first = i * W * C_;
      const ImageRows<T> rows = dy(image, clamp(p + taps.first, 0, P - 1), clamp(p + taps.last(), 0, P - 1), thread);
      dgrad.forward_row(rows, p, conv.panels, conv.bias, false, dz_ + first, C_, AsItLies<T>{});
      sums.add(piece, dz_ + first, x_ + first, W, norm_);
      return rows.data + (p * shape_.window.Q * C_ - rows.skipped);
    });
    leave(sums, dx);
  }

  void apart(const T* dy, Pending<T>& dx) const {
    {
      const Rectified<T> y(x_, a_.norm.rows, C_, norm_);
      conv2d_wgrad({dy, y.data(), dw_, a_.conv.shape, a_.conv.dtype});
    }
    Conv2dDgradArgs conv = a_.conv;
    conv.dy = dy;
    conv.dx = dz_;
    conv2d_dgrad(conv);
    const Index rows = a_.norm.rows, pieces = ceil_div(rows * C_, kGrain);
    const GradientSums<T> sums(pieces, C_);
    parallel_for(pieces, [&](Index i) {
      const Range piece = part(rows, pieces, i);
      sums.add(i, dz_ + piece.begin * C_, x_ + piece.begin * C_, piece.end - piece.begin, norm_);
    });
    leave(sums, dx);
  }

  const BatchNorm2dReluConv2dBwdArgs& a_;
  Index C_;
  Conv2dShape shape_;
  const T* x_;
  T *dz_, *dw_;
  NormReluOf<T> coefficients_;
  NormRelu<T> norm_;
};

// Maps of the gradients between blocks: two in turn, since a block reads one and writes the other. The first block's is
// dx, which serves others of its turn as well if it is large enough.
template <class T>
class Turns {
 public:
  explicit Turns(const std::vector<BatchNorm2dReluConv2dBwdArgs>& blocks)
      : dx_(static_cast<T*>(blocks.front().norm.dx)),
        enough_(most(blocks, 2) <= elements(blocks.front())),
        even_(workspace_of<T>(enough_ ? 0 : most(blocks, 2))),
        odd_(workspace_of<T>(most(blocks, 1))) {}

  T* operator[](std::size_t i) const {
    if (i % 2 == 1) return odd_.template as<T>();
    return i == 0 || enough_ ? dx_ : even_.template as<T>();
  }

 private:
  static Index elements(const BatchNorm2dReluConv2dBwdArgs& a) { return a.norm.rows * a.norm.channels; }
  static Index most(const std::vector<BatchNorm2dReluConv2dBwdArgs>& blocks, std::size_t first) {
    Index n = 0;
    for (std::size_t i = first; i < blocks.size(); i += 2) n = elements(blocks[i]) > n ? elements(blocks[i]) : n;
    return n;
  }

  T* dx_;
  bool enough_;
  Workspace even_, odd_;
};

template <class T>
void bwd_of(const std::vector<BatchNorm2dReluConv2dBwdArgs>& blocks) {
  const Turns<T> dz(blocks);
  Pending<T> left[2];
  for (std::size_t i = blocks.size(); i-- > 0;) Backward<T>(blocks[i], dz[i]).run(left[(i + 1) % 2], left[i % 2]);
  left[0]->complete();  // NOLINT(bugprone-unchecked-optional-access): a chain has a block, which leaves its gradient
}

void chain_bwd(const NormConvChainBwdArgs& a) {
  with_dtype(a.blocks.front().norm.dtype, [&]<class T>(T) { bwd_of<T>(a.blocks); });
}

void bwd(const BatchNorm2dReluConv2dBwdArgs& a) { chain_bwd({{a}}); }

const Register kBwd{batch_norm2d_relu_conv2d_bwd, kIsa, bwd};
const Register kChainBwd{batch_norm2d_relu_conv2d_chain_bwd, kIsa, chain_bwd};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
