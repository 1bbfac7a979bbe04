// Which kernel computes which convolution: the first of a list that can, in the shapes where it was measured to be
// ahead of those behind it. What a kernel can at all, its own header says (can). The figures are those of one thread
// with AVX2, unless told, batch 32, in percent of the core's multiply-adds in the dense convolution; `stapes bench ops`
// measures them anew.
//
//   direction     kernel         where it is taken                              there, and what follows instead
//   fwd and bwd   that of AVX2   AVX-512; groups of half a vector or less,      8 wide: 1.1 times as fast
//                                where wgrad is not narrow
//   fwd, dgrad    dense          256 rows at most, 2^18 weights or more         Linear 16384 -> 64: step 32 ms, 39
//                 winograd       3x3, stride 1; 300 pixels, 16 channels of both C32 -> 64: 140 %; 256 pixels: even
//                 direct         all                                            75 to 90 %
//   wgrad         dense          as forward
//                 depthwise      3 taps in a row at most                        64 channels: 1.8 ms, 4.1
//                 narrow         groups of half or a quarter vector, of x and   64 in 8 groups: 2.5 ms, 4.8
//                                dy; 3 taps in a row at most
//                 winograd       3x3, stride 1; whole vectors of C              C32 -> 64: 120 %, 57; C128: 147 %, 30
//                 gathered       256 outputs; 48 K, 1 vector of C; 1x1: 1, 2    3x3, stride 2: 66 %, 48; K = 32: 58, 63
//                                AVX-512: 128 K                                 K = 64: 71 %, 81; K = 128: 73, 66
//                 tiles          all                                            50 to 60 %
//   pooled fwd    winograd       2x2 windows, as forward                        C32 -> 64: 146 %
//                 first          2x2 windows, 3x3, C = 1 or 3                   C = 3: 71 %
//                 direct         all
//   pooled wgrad  select         2x2 windows, C up to 4; vectors of 4 or more   C = 3: 2.2 ms, 3.1
//                 sparse         below 128 channels, or no 3x3 with stride 1    both, 64 channels: 204 %, 145
//                 dense          all                                            both, 128 channels: 140 %, 102
//   pooled dgrad  sparse         whole vectors of a row of taps
//                 dense          all
//   first block   gram           32 numbers in a patch, 16 K for each C; float  C = 1, K = 32: 6.3 ms, 16.9
//                 parts          all                                            C = 3, K = 16: 4.9 ms, 13
#pragma once

#include "cpu/dense.hpp"
#include "cpu/first_pool.hpp"
#include "cpu/gathered_wgrad.hpp"
#include "cpu/narrow_wgrad.hpp"
#include "cpu/patch_gram.hpp"
#include "cpu/pool_select_wgrad.hpp"
#include "cpu/pool_sparse_dgrad.hpp"
#include "cpu/pool_sparse_wgrad.hpp"
#include "cpu/winograd.hpp"
#include "cpu/winograd_wgrad.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

// Groups whose vectors would be half full at most, `width` being the channels that lie along them: half a vector is a
// whole one of AVX2, whose kernels are ahead there. Asked by conv2d and its gradients, not by the fused operators.
template <class T>
bool is_narrow(const Conv2dShape& s, Index width) {
  return kIsa == Isa::kV4 && s.groups > 1 && !is_depthwise(s) && 2 * width <= kLanes<T>;
}

// Of forward and dgrad, which is a convolution as well: from C to K channels at so many pixels. `flat`: as
// flatten_pointwise makes it.
enum class Conv { kDense, kWinograd, kDirect };

template <class T>
Conv choose_conv(const Conv2dShape& flat, Index C, Index K, Index pixels) {
  constexpr Index kMostRows = 256, kLeastDepth = 1024, kLeastWeights = 1 << 18;  // fewer stay in the cache anyhow
  constexpr Index kLeastPixels = 300, kLeastChannels = least(2 * kLanes<T>, 16);
  const bool few_rows = flat.W <= kMostRows && flat.C >= kLeastDepth && flat.C * flat.K >= kLeastWeights;
  if (Dense::can(flat) && few_rows) return Conv::kDense;
  const bool many = pixels >= kLeastPixels && C >= kLeastChannels && K >= kLeastChannels;
  return Winograd<T>::can(flat, C) && many ? Conv::kWinograd : Conv::kDirect;
}

template <class T>
Conv choose_fwd(const Conv2dShape& flat) {
  return choose_conv<T>(flat, flat.C, flat.K, flat.N * flat.window.P * flat.window.Q);
}

template <class T>
Conv choose_dgrad(const Conv2dShape& flat) {
  return choose_conv<T>(flat, flat.K, flat.C, flat.N * flat.H * flat.W);
}

enum class Wgrad { kDense, kDepthwise, kNarrow, kWinograd, kGathered, kTiles };

template <class T>
Wgrad choose_wgrad(const Conv2dShape& flat) {
  constexpr Index kLeastOutputs = 256, kLeastK = STAPES_VECTOR_BYTES == 64 ? 128 : 48;
  if (choose_fwd<T>(flat) == Conv::kDense) return Wgrad::kDense;
  if (is_depthwise(flat) && Depthwise<T>::can(forward_grid(flat))) return Wgrad::kDepthwise;
  if (NarrowWgrad<T>::can(flat)) return Wgrad::kNarrow;
  if (WinogradWgrad<T>::can(flat) && flat.K >= kLanes<T>) return Wgrad::kWinograd;
  const bool pays = is_row_of_pixels(flat) ? flat.C >= 2 * kLanes<T> && flat.K >= kLanes<T>
                                           : flat.C >= kLanes<T> && flat.K >= kLeastK;
  const bool many = flat.N * flat.window.P * flat.window.Q >= kLeastOutputs;
  return GatheredWgrad<T>::can(flat) && pays && many ? Wgrad::kGathered : Wgrad::kTiles;
}

enum class PooledFwd { kWinograd, kFirst, kDirect };

template <class T>
PooledFwd choose_pooled_fwd(const Conv2dShape& s, const PoolGrid& pool) {
  const bool is_2x2 = pool.pool_h == 2 && pool.pool_w == 2;
  if (is_2x2 && choose_fwd<T>(s) == Conv::kWinograd) return PooledFwd::kWinograd;
  return FirstPool<T>::can(s, pool) ? PooledFwd::kFirst : PooledFwd::kDirect;
}

enum class PooledWgrad { kSelect, kSparse, kDense };

template <class T>
PooledWgrad choose_pooled_wgrad(const Conv2dShape& s, const PoolGrid& pool) {
  constexpr Index kDenseChannels = 128;  // from here on the sums of PoolSparseWgrad leave L1
  if (PoolSelectWgrad<T>::can(s, pool)) return PooledWgrad::kSelect;
  const bool dense = WinogradWgrad<T>::can(s) && s.K >= kLanes<T> && s.C >= kDenseChannels;
  return !dense && PoolSparseWgrad<T>::can(s, pool) ? PooledWgrad::kSparse : PooledWgrad::kDense;
}

// Whether a first block is computed by the Gram matrix of its patches: its cost grows with their square, whatever K is.
template <class T>
bool takes_gram(const Conv2dShape& s) {
  constexpr Index kLeastOutputs = 16;  // channels, for each one of x
  return PatchGram<T>::can(s) && s.K >= kLeastOutputs * s.C;
}

enum class PooledDgrad { kSparse, kDense };

template <class T>
PooledDgrad choose_pooled_dgrad(const Conv2dShape& s, const PoolGrid& pool) {
  return PoolSparseDgrad<T>::can(s, pool) ? PooledDgrad::kSparse : PooledDgrad::kDense;
}

}  // namespace stapes::cpu::STAPES_ISA_NAME
