// The host's side of the implicit GEMMs: which numbers, which tile, which loads; what sizes a launch can take.
#pragma once

#include <stdexcept>
#include <string>

#include "cuda/channels.cuh"
#include "cuda/conv2d_gemm.cuh"

namespace stapes::cuda {

// ---- tiles, chosen by shape alone. A warp's accumulators are kWarpM * kWarpN / 32 registers a thread.
//              M    N   warp    stages, blocks an SM    threads  shared memory  accumulators, limit of registers
using Wide = Tile<128, 128, 64, 32, 4, 2>;     // 256     64 KB   64  128
using Tall = Tile<128, 64, 64, 32, 4, 3>;      // 128     48 KB   64  168
using TallFew = Tile<128, 64, 64, 32, 4, 2>;   // 128     48 KB   64  255
using Narrow = Tile<128, 32, 32, 32, 4, 4>;    // 128     40 KB   32  128
using Square = Tile<64, 64, 32, 32, 4, 4>;     // 128     32 KB   32  128
using SquareFew = Tile<64, 64, 32, 32, 4, 3>;  // 128     32 KB   32  168
using Small = Tile<64, 32, 32, 16, 4, 5>;      // 128     24 KB   16  102
using SmallFew = Tile<64, 32, 32, 16, 4, 4>;   // 128     24 KB   16  128: for Elements, which hold pieces in registers
using Smallest = Tile<32, 32, 32, 16, 4, 6>;   //  64     16 KB   16  168

template <class... T>
struct Tiles {};

// fwd and dgrad: M is pixels, N channels.
template <class Math>
struct ImageTiles {
  using List = Tiles<Wide, Tall, Narrow, Small>;
};
template <>
struct ImageTiles<Ffma> {
  using List = Tiles<Tall, Narrow, Small>;
};
template <>
struct ImageTiles<Tf32> {
  using List = Tiles<Tall, Small>;
};
template <>
struct ImageTiles<Tf32x3> {
  using List = Tiles<TallFew, Small>;
};

// wgrad: M is K, N the filter's places.
template <class Math>
struct FilterTiles {
  using List = Tiles<Wide, Square, Smallest>;
};
template <>
struct FilterTiles<Ffma> {
  using List = Tiles<Tall, Square, Smallest>;
};
template <>
struct FilterTiles<Tf32> {
  using List = Tiles<TallFew, SquareFew, Smallest>;
};
template <>
struct FilterTiles<Tf32x3> {
  using List = Tiles<TallFew, SquareFew, Smallest>;
};

#ifdef STAPES_SIMT
inline constexpr std::int64_t kEnoughBlocks = 3;  // so that tests on the emulator meet all tiles
#else
inline constexpr std::int64_t kEnoughBlocks = 256;  // about two for each SM of an H100
#endif

// Calls f with the first tile that M and N fill to more than half and that makes `enough` blocks of `copies` problems;
// with the last one where there is none.
template <class First, class... Rest, class F>
void with_tile(Tiles<First, Rest...>, std::int64_t M, std::int64_t N, std::int64_t copies, std::int64_t enough, F&& f) {
  if constexpr (sizeof...(Rest) > 0) {
    const std::int64_t blocks = ceil_div<std::int64_t>(M, First::kM) * ceil_div<std::int64_t>(N, First::kN) * copies;
    if (2 * M <= First::kM || 2 * N <= First::kN || blocks < enough) {
      return with_tile(Tiles<Rest...>{}, M, N, copies, enough, f);
    }
  }
  f(First{});
}

// ---- numbers
template <class Math>
struct Use {
  using type = Math;
};

// Calls f(Use<Math>{}).
template <class F>
void with_math(const char* op, DType dtype, Precision precision, F&& f) {
  const bool old = device_arch() < 80;
  if (old && (dtype == DType::kBFloat16 || precision != Precision::kFp32)) {
    throw std::runtime_error(std::string(op) + ": bfloat16 and TF32 need compute capability 8.0, the device has less");
  }
  if (dtype == DType::kFloat16) return f(Use<Mma16<half>>{});
  if (dtype == DType::kBFloat16) return f(Use<Mma16<bfloat16>>{});
  if (precision == Precision::kTf32) return f(Use<Tf32>{});
  if (precision == Precision::kFp32Split) return f(Use<Tf32x3>{});
  f(Use<Ffma>{});
}

// ---- loads
// Whether `channels` in a row from each of the arrays' starts can be had in pieces of 16 bytes.
inline bool in_pieces(std::size_t element, std::int64_t channels, const void* p) {
  return is_aligned(p, 16) && channels * static_cast<std::int64_t>(element) % 16 == 0;
}

// ---- sizes
// 1x1, stride 1, unpadded: every pixel an image, so that images can be dealt out as they fit.
inline Conv2dShape flatten_pointwise(Conv2dShape s) {
  Window2d& w = s.window;
  const bool pointwise = w.kernel_h == 1 && w.kernel_w == 1 && w.stride_h == 1 && w.stride_w == 1 &&
                         w.pad_top + w.pad_bottom + w.pad_left + w.pad_right == 0;
  if (pointwise) {
    s.N *= s.H * s.W;
    s.H = s.W = w.P = w.Q = 1;
  }
  return s;
}

inline constexpr std::int64_t kMostPixels = std::int64_t{1} << 30;  // of an image
#ifdef STAPES_SIMT
inline constexpr std::int64_t kPixelsAtOnce = 512;  // of a launch; so that tests see more than one
#else
inline constexpr std::int64_t kPixelsAtOnce = kMostPixels;
#endif

// Throws where coordinates of a window, or the pixels of an image, do not fit 31 bits.
inline void check_sizes(const char* op, const Conv2dShape& s) {
  const Window2d& w = s.window;
  const auto fits = [&](std::int64_t size, std::int64_t pad_before, std::int64_t pad_after, std::int64_t kernel,
                        std::int64_t dilation, std::int64_t stride, std::int64_t outputs) {
    constexpr std::int64_t kLimit = INT32_MAX;
    return size + pad_before < kLimit && size + pad_after < kLimit && (kernel - 1) * dilation < kLimit &&
           (stride < kLimit || outputs == 1);
  };
  const bool ok = fits(s.H, w.pad_top, w.pad_bottom, w.kernel_h, w.dil_h, w.stride_h, w.P) &&
                  fits(s.W, w.pad_left, w.pad_right, w.kernel_w, w.dil_w, w.stride_w, w.Q) &&
                  s.H * s.W <= kMostPixels && w.P * w.Q <= kMostPixels &&
                  w.kernel_h * w.kernel_w * s.C <= kMostPixels && w.kernel_h * w.kernel_w * s.K <= kMostPixels;
  if (!ok) {
    throw std::invalid_argument(std::string(op) + ": on CUDA an image has at most 2^30 pixels, a filter at most 2^30 " +
                                "weights, and coordinates stay below 2^31");
  }
}

// Images for one launch.
inline std::int64_t images_at_once(const Conv2dShape& s) {
  const std::int64_t most = std::max(s.H * s.W, s.window.P * s.window.Q);
  return std::max<std::int64_t>(1, kPixelsAtOnce / most);
}

}  // namespace stapes::cuda
