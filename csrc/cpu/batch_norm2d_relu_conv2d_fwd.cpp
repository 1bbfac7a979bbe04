// batch_norm2d_relu_conv2d: batch_norm2d, ReLU and a convolution of the result, which is never written
//   fwd: z = (x - mean) * scale + shift as batch_norm2d's y, y = conv2d(max(0, z), w, b)
//        kept = (mean, scale, shift, rstd), from which the backward makes z again
// batch_norm2d_relu_conv2d_chain: several of these, each of the y of the one before
// Layout as conv2d; any stride, padding (of max(0, z)), dilation and groups.
// Work: 1x1 and depthwise convolutions read x through norm_relu.hpp; others get max(0, z) in scratch memory, and their
// own kernels. In a chain, the statistics of y are taken while its rows are in the cache (PieceMoments).
// Numerics: statistics as batch_norm2d or piece_moments.hpp, coefficients as batch_norm2d, convolutions as conv2d. All
// overwrite.
// Source: S. Ioffe, C. Szegedy, "Batch Normalization", 2015.
#include <optional>

#include "core/dispatch.hpp"
#include "cpu/batch_norm2d.hpp"
#include "cpu/choice.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

template <class T>
using Moments = std::optional<PieceMoments<T>>;

// `moments` are those of x, where they were taken; and then, where `more` is to come and it is cheap, those of y.
template <class T>
void fwd_block(const BatchNorm2dReluConv2dFwdArgs& a, Moments<T>& moments, bool more) {
  constexpr Index kLeastChannels = 2 * kColumnBlock;  // fewer are folded by RowChunks
  const Index C = a.norm.channels;
  T* kept = static_cast<T*>(a.kept);
  prepare(a.norm, RowChunks(a.norm.rows, C), Normalisation<T>{kept, kept + C, kept + 2 * C},
          moments ? &*moments : nullptr);
  moments.reset();
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
  const Output<T> y{static_cast<T*>(a.conv.y), g.Q * shape.K, shape.K};
  const Index image = g.P * g.Q * shape.K, pieces = piece_count(forward.conv());
  if (!more || pieces == 0 || shape.K < kLeastChannels) return run_direct(forward.conv(), y, image);
  const int threads = num_threads();
  moments.emplace(pieces, threads, shape.K);
  run_direct(forward.conv(), y, image, threads,
             [&](Index piece, int thread, const T* row, Index pixels) { moments->add(piece, thread, row, pixels); });
}

void chain_fwd(const NormConvChainFwdArgs& a) {
  with_dtype(a.blocks.front().norm.dtype, [&]<class T>(T) {
    Moments<T> moments;
    for (std::size_t i = 0; i < a.blocks.size(); ++i) {
      fwd_block(a.blocks[i], moments, i + 1 < a.blocks.size() && a.blocks[i + 1].norm.training);
    }
  });
}

void fwd(const BatchNorm2dReluConv2dFwdArgs& a) { chain_fwd({{a}}); }

const Register kFwd{batch_norm2d_relu_conv2d_fwd, kIsa, fwd};
const Register kChainFwd{batch_norm2d_relu_conv2d_chain_fwd, kIsa, chain_fwd};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
