// global_avg_pool2d
//   fwd: y[n,c] = sum over the image of x[n,:,:,c] / (H * W)
//   bwd: dx[n,h,w,c] = dy[n,c] / (H * W)
// Layout NHWC. Work: pieces of kPixels pixels in parallel, so that one large image uses every thread as well;
// the pieces' sums are added in their order. Vectors along the channels.
// Numerics: sums in the input's dtype; the pieces keep the error near that of pairwise summation. Both overwrite.
#include "core/dispatch.hpp"
#include "cpu/lanes.hpp"
#include "cpu/parallel.hpp"
#include "cpu/workspace.hpp"
#include "ops/kernels.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

constexpr std::int64_t kPixels = 128;

// out[c] = (sum over i of x[i * C + c]) / divisor; in four sums, so that no addition waits for the one before.
template <class T>
void sum_pixels(const T* x, std::int64_t pixels, std::int64_t C, T divisor, T* out) {
  for_channels<T>(C, [&]<class V>(V, std::int64_t c) {
    V sums[4]{};
    const T* at = x + c;
    std::int64_t i = 0;
    for (; i + 4 <= pixels; i += 4, at += 4 * C) {
      for (int k = 0; k < 4; ++k) sums[k] += load_as<V>(at + k * C);
    }
    for (; i < pixels; ++i, at += C) sums[0] += load_as<V>(at);
    store_as(out + c, ((sums[0] + sums[1]) + (sums[2] + sums[3])) / divisor);
  });
}

template <class T>
void fwd(const GlobalAvgPool2dArgs& a, T) {
  const T* x = static_cast<const T*>(a.in);
  T* y = static_cast<T*>(a.out);
  const std::int64_t C = a.C, pixels = a.pixels, pieces = ceil_div(pixels, kPixels);
  const Workspace scratch = workspace_of<T>(a.N * pieces * C);
  T* partial = scratch.as<T>();
  parallel_for(a.N * pieces, [=](std::int64_t i) {
    const Range r = part(pixels, pieces, i % pieces);
    sum_pixels(x + (i / pieces * pixels + r.begin) * C, r.end - r.begin, C, T(1), partial + i * C);
  });
  for (std::int64_t n = 0; n < a.N; ++n) {
    sum_pixels(partial + n * pieces * C, pieces, C, static_cast<T>(pixels), y + n * C);
  }
}

template <class T>
void bwd(const GlobalAvgPool2dArgs& a, T) {
  const T* dy = static_cast<const T*>(a.in);
  T* dx = static_cast<T*>(a.out);
  const std::int64_t C = a.C, pixels = a.pixels, pieces = ceil_div(pixels, kPixels);
  parallel_for(a.N * pieces, [=](std::int64_t i) {
    const Range r = part(pixels, pieces, i % pieces);
    const T* g = dy + i / pieces * C;
    T* out = dx + (i / pieces * pixels + r.begin) * C;
    for (std::int64_t k = r.begin; k < r.end; ++k, out += C) {
      for (std::int64_t c = 0; c < C; ++c) out[c] = g[c] / static_cast<T>(pixels);
    }
  });
}

const Register kFwd{global_avg_pool2d_fwd, kIsa,
                    [](const GlobalAvgPool2dArgs& a) { with_dtype(a.dtype, [&](auto t) { fwd(a, t); }); }};
const Register kBwd{global_avg_pool2d_bwd, kIsa,
                    [](const GlobalAvgPool2dArgs& a) { with_dtype(a.dtype, [&](auto t) { bwd(a, t); }); }};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
