// batch_norm2d_relu_global_avg_pool2d: batch_norm2d, ReLU and the mean over the image
//   fwd: z = (x - mean) * scale + shift as batch_norm2d's y; y[n,c] = sum over the image of max(0, z) / (H * W)
//        kept = (mean, scale, shift, rstd), from which the backward makes z again
//        alive = for each image and channel the share of pixels where z > 0 (or NaN), and the mean of x - mean there
//   bwd: batch_norm2d's, with the gradient of z: dy[n,c] / (H * W) where z > 0 (or NaN), else 0
// Layout NHWC. z is never written, nor its gradient: y follows from `alive`, and so do the sums that the backward needs
// before it can make dx, in one pass.
// Work: pieces of kPixels pixels of an image in parallel, the sums of which are added in their order.
// Numerics: statistics as batch_norm2d. Sums of a piece in T, those of pieces in double. Both overwrite.
// Source: S. Ioffe, C. Szegedy, "Batch Normalization", 2015.
#include "core/dispatch.hpp"
#include "cpu/batch_norm2d.hpp"
#include "cpu/norm_relu.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

constexpr Index kPixels = 128;

// Pieces of images, none of which has pixels of two.
struct ImagePieces {
  Index N, pixels;

  Index of_image() const { return ceil_div(pixels, kPixels); }
  Index count() const { return N * of_image(); }
  Index image(Index i) const { return i / of_image(); }
  Range operator[](Index i) const {
    const Range r = part(pixels, of_image(), i % of_image());
    return {image(i) * pixels + r.begin, image(i) * pixels + r.end};
  }
};

template <class T>
NormRelu<T> normalisation_of(const void* kept, Index C) {
  const T* p = static_cast<const T*>(kept);
  return {p, p + C, p + 2 * C};
}

// sums: (2, C), how many pixels are alive, and their x - mean.
template <class T>
void add_alive(const T* x, Range pixels, Index C, const NormRelu<T>& norm, T* sums) {
  for_channels<T>(C, [&]<class V>(V, Index c) {
    const auto at = norm.template at<V>(c);
    const V one = V{} + T(1);
    V count[2]{}, distance[2]{};
    const auto add = [&](Index i, int chain) {
      const V value = load_as<V>(x + i * C + c);
      const auto dead = at.normal(value) <= V{};
      count[chain] += dead ? V{} : one;
      distance[chain] += dead ? V{} : value - at.center;
    };
    Index i = pixels.begin;
    for (; i + 2 <= pixels.end; i += 2) {
      add(i, 0);
      add(i + 1, 1);
    }
    if (i < pixels.end) add(i, 0);
    store_as(sums + c, count[0] + count[1]);
    store_as(sums + C + c, distance[0] + distance[1]);
  });
}

template <class T>
void fwd_of(const BatchNorm2dReluGlobalAvgPool2dFwdArgs& a) {
  const Index C = a.norm.channels;
  T* kept = static_cast<T*>(a.kept);
  prepare(a.norm, RowChunks(a.norm.rows, C), Normalisation<T>{kept, kept + C, kept + 2 * C});

  const ImagePieces pieces{a.N, a.pixels};
  const NormRelu<T> norm = normalisation_of<T>(kept, C);
  const Workspace scratch = workspace_of<T>(pieces.count() * 2 * C);
  T* sums = scratch.as<T>();
  parallel_for(pieces.count(),
               [&](Index i) { add_alive(static_cast<const T*>(a.norm.x), pieces[i], C, norm, sums + i * 2 * C); });

  T *y = static_cast<T*>(a.norm.y), *alive = static_cast<T*>(a.alive);
  const double pixels = static_cast<double>(a.pixels);
  for (Index n = 0; n < a.N; ++n) {
    const T* of_image = sums + n * pieces.of_image() * 2 * C;
    for (Index c = 0; c < C; ++c) {
      double count = 0, distance = 0;
      for (Index i = 0; i < pieces.of_image(); ++i) {
        count += static_cast<double>(of_image[i * 2 * C + c]);
        distance += static_cast<double>(of_image[i * 2 * C + C + c]);
      }
      const double share = count / pixels, mean = count > 0 ? distance / count : 0;
      const double z = mean * static_cast<double>(norm.scale[c]) + static_cast<double>(norm.shift[c]);
      y[n * C + c] = static_cast<T>(count > 0 ? share * z : 0);
      alive[n * C + c] = static_cast<T>(share);
      alive[(a.N + n) * C + c] = static_cast<T>(mean);
    }
  }
}

// dx of pixels of one image, of which `dy` is the gradient.
template <bool kTraining, class T>
void make_dx(const T* x, Range pixels, Index C, const NormRelu<T>& norm, const InputGradient<T>& g, const T* dy,
             T divisor, T* dx) {
  constexpr Index kAhead = 8;
  for_channels<T>(C, [&]<class V>(V, Index c) {
    const auto at = norm.template at<V>(c);
    const V slope = load_as<V>(g.slope + c), dead = kTraining ? load_as<V>(g.shift + c) : V{};
    const V alive = dead + load_as<V>(g.scale + c) * (load_as<V>(dy + c) / divisor);
    for (Index i = pixels.begin; i < pixels.end; ++i) {
      const V value = load_as<V>(x + i * C + c);
      __builtin_prefetch(x + (i + kAhead) * C + c);
      V sum = at.normal(value) <= V{} ? dead : alive;
      if constexpr (kTraining) sum += slope * (value - at.center);
      store_as(dx + i * C + c, sum);
    }
  });
}

template <class T>
void bwd_of(const BatchNorm2dReluGlobalAvgPool2dBwdArgs& a) {
  const Index C = a.norm.channels;
  const T *x = static_cast<const T*>(a.norm.x), *dy = static_cast<const T*>(a.norm.dy),
          *alive = static_cast<const T*>(a.alive);
  const Workspace sums = workspace_of<double>(2 * C), coefficients = workspace_of<T>(3 * C);
  double* sum = sums.as<double>();
  for (Index c = 0; c < 2 * C; ++c) sum[c] = 0;
  for (Index n = 0; n < a.N; ++n, dy += C, alive += C)
    for (Index c = 0; c < C; ++c) {
      if (alive[c] == T(0)) continue;  // nothing of dy, NaN or not
      const double g = static_cast<double>(dy[c]) * static_cast<double>(alive[c]);
      sum[c] += g;
      sum[C + c] += g * static_cast<double>(alive[a.N * C + c]);
    }
  T* p = coefficients.as<T>();
  const InputGradient<T> g{nullptr, p, p + C, p + 2 * C};
  finish(a.norm, sum, sum + C, g);

  const ImagePieces pieces{a.N, a.pixels};
  const NormRelu<T> norm = normalisation_of<T>(a.kept, C);
  T* dx = static_cast<T*>(a.norm.dx);
  parallel_for(pieces.count(), [&](Index i) {
    const T* of_image = static_cast<const T*>(a.norm.dy) + pieces.image(i) * C;
    const T divisor = static_cast<T>(a.pixels);
    a.norm.training ? make_dx<true>(x, pieces[i], C, norm, g, of_image, divisor, dx)
                    : make_dx<false>(x, pieces[i], C, norm, g, of_image, divisor, dx);
  });
}

void fwd(const BatchNorm2dReluGlobalAvgPool2dFwdArgs& a) {
  with_dtype(a.norm.dtype, [&]<class T>(T) { fwd_of<T>(a); });
}

void bwd(const BatchNorm2dReluGlobalAvgPool2dBwdArgs& a) {
  with_dtype(a.norm.dtype, [&]<class T>(T) { bwd_of<T>(a); });
}

const Register kFwd{batch_norm2d_relu_global_avg_pool2d_fwd, kIsa, fwd};
const Register kBwd{batch_norm2d_relu_global_avg_pool2d_bwd, kIsa, bwd};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
