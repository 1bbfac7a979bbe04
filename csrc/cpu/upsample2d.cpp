// upsample2d, nearest neighbour
//   fwd: y[n, h * scale_h + i, w * scale_w + j, c] = x[n,h,w,c]
//   bwd: dx[n,h,w,c] = sum over i, j of dy[n, h * scale_h + i, w * scale_w + j, c]
// Layout NHWC; H and W are those of x and dx. Work: rows of x (dx) in parallel; vectors along the channels.
// Numerics: fwd is exact; bwd adds in the input's dtype, rows first, in scan order. Both overwrite.
#include "core/dispatch.hpp"
#include "cpu/lanes.hpp"
#include "cpu/windows.hpp"
#include "ops/kernels.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

// One row of x fills scale_h equal rows of y.
template <class T>
void fwd_row(const Upsample2dArgs& a, std::int64_t row) {
  const std::int64_t width = a.W * a.scale_w * a.C;
  const T* x = static_cast<const T*>(a.in) + row * a.W * a.C;
  T* y = static_cast<T*>(a.out) + row * a.scale_h * width;
  for (std::int64_t w = 0; w < a.W; ++w) {
    for (std::int64_t j = 0; j < a.scale_w; ++j) {
      for (std::int64_t c = 0; c < a.C; ++c) y[(w * a.scale_w + j) * a.C + c] = x[w * a.C + c];
    }
  }
  for (std::int64_t i = 1; i < a.scale_h; ++i) {
    for (std::int64_t k = 0; k < width; ++k) y[i * width + k] = y[k];
  }
}

template <class T>
void bwd_row(const Upsample2dArgs& a, std::int64_t row) {
  const std::int64_t C = a.C, width = a.W * a.scale_w * C;
  const T* dy = static_cast<const T*>(a.in) + row * a.scale_h * width;
  T* dx = static_cast<T*>(a.out) + row * a.W * C;
  for (std::int64_t w = 0; w < a.W; ++w, dx += C) {
    for_channels<T>(C, [&]<class V>(V, std::int64_t c) {
      V sum{};
      for (std::int64_t i = 0; i < a.scale_h; ++i) {
        V line{};
        for (std::int64_t j = 0; j < a.scale_w; ++j) {
          line += load_as<V>(dy + i * width + (w * a.scale_w + j) * C + c);
        }
        sum += line;
      }
      store_as(dx + c, sum);
    });
  }
}

template <class F>
void for_rows(const Upsample2dArgs& a, const F& f) {
  const std::int64_t width = a.scale_h * a.W * a.scale_w * a.C;
  parallel_ranges(a.N * a.H, rows_per_task(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) f(i);
  });
}

void fwd(const Upsample2dArgs& a) {
  with_dtype(a.dtype, [&]<class T>(T) { for_rows(a, [&](std::int64_t row) { fwd_row<T>(a, row); }); });
}

void bwd(const Upsample2dArgs& a) {
  with_dtype(a.dtype, [&]<class T>(T) { for_rows(a, [&](std::int64_t row) { bwd_row<T>(a, row); }); });
}

const Register kFwd{upsample2d_fwd, kIsa, fwd};
const Register kBwd{upsample2d_bwd, kIsa, bwd};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
