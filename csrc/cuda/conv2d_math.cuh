// How a warp multiplies the tiles of a stage (conv2d_tile.cuh), for each kind of number:
//   Ffma       float32, exact products: outer products of what a thread holds in registers
//   Tf32       float32 rounded to 11 bits, tensor cores (m16n8k8)
//   Tf32x3     float32 as the sum of two TF32 numbers, three products: relative error about 2^-22 of a product;
//              an infinity in a product gives NaN
//   Mma16<T>   half or bfloat16, tensor cores (m16n8k16; sm_75: two m16n8k8)
// All sum in float32, depth in order, so that the result of an element depends neither on the tile nor on the loads.
// (In which order the 8 or 16 products of one instruction are summed is the hardware's.)
#pragma once

#include "cuda/conv2d_tile.cuh"
#include "cuda/mma.cuh"

namespace stapes::cuda {

// ---- fragments for mma: 16 lines of A, or 16 of B, by one step of depth, which is two pieces (16 or 8 numbers)
inline constexpr int kStepPieces = 2;

template <class Op>
__device__ __forceinline__ void load_a(std::uint32_t (&a)[4], const typename Op::Element* tile, int line, int step) {
  using T = typename Op::Element;
  const int lane = lane_id();
  if constexpr (Op::kRuns == Along::kDepth) {
    ldmatrix_x4(a, tile + Op::offset(line + lane % 16, step * kStepPieces + lane / 16));
  } else if constexpr (sizeof(T) == 2) {
    const int depth = step * 16 + lane / 16 * 8 + lane % 8;
    ldmatrix_x4<true>(a, tile + Op::offset(depth, line / kVec<T> + lane / 8 % 2));
  } else {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const float v = tile[Op::element(line + r % 2 * 8 + lane / 4, step * 8 + r / 2 * 4 + lane % 4)];
      a[r] = __float_as_uint(v);
    }
  }
}

// b[0], b[1]: the fragment of lines 0 to 7; b[2], b[3]: of lines 8 to 15.
template <class Op>
__device__ __forceinline__ void load_b(std::uint32_t (&b)[4], const typename Op::Element* tile, int line, int step) {
  using T = typename Op::Element;
  const int lane = lane_id();
  if constexpr (Op::kRuns == Along::kDepth) {
    ldmatrix_x4(b, tile + Op::offset(line + lane / 16 * 8 + lane % 8, step * kStepPieces + lane / 8 % 2));
  } else if constexpr (sizeof(T) == 2) {
    const int depth = step * 16 + lane / 8 % 2 * 8 + lane % 8;
    ldmatrix_x4<true>(b, tile + Op::offset(depth, line / kVec<T> + lane / 16));
  } else {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const float v = tile[Op::element(line + r / 2 * 8 + lane / 4, step * 8 + r % 2 * 4 + lane % 4)];
      b[r] = __float_as_uint(v);
    }
  }
}

// The layout of D that mma gives.
struct MmaPlaces {
  template <Along>
  __device__ __forceinline__ static constexpr int row(int i) {
    return 8 * i;
  }
  template <Along>
  __device__ __forceinline__ static constexpr int column(int j) {
    return j / 2 * 8 + j % 2;
  }
  template <Along>
  __device__ __forceinline__ static int first_row() {
    return lane_id() / 4;
  }
  template <Along>
  __device__ __forceinline__ static int first_column() {
    return lane_id() % 4 * 2;
  }
};

template <class T>
struct Mma16 : MmaPlaces {
  using Element = T;

  template <class Tile, class A, class B>
  __device__ __forceinline__ static void multiply(Accumulators<Tile>& acc, const T* a, const T* b, int m, int n) {
#pragma unroll
    for (int step = 0; step < kStageDepth<T> / 16; ++step) {
      std::uint32_t fa[Tile::kWarpM / 16][4], fb[Tile::kWarpN / 16][4];
#pragma unroll
      for (int i = 0; i < Tile::kWarpM / 16; ++i) load_a<A>(fa[i], a, m + 16 * i, step);
#pragma unroll
      for (int j = 0; j < Tile::kWarpN / 16; ++j) load_b<B>(fb[j], b, n + 16 * j, step);
#pragma unroll
      for (int i = 0; i < Tile::kWarpM / 16; ++i) {
#pragma unroll
        for (int j = 0; j < Tile::kWarpN / 8; ++j) {
          const std::uint32_t pair[2] = {fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]};
          mma_m16n8k16<T>(acc.d[i][j], fa[i], pair);
        }
      }
    }
  }
};

struct Tf32 : MmaPlaces {
  using Element = float;

  template <class Tile, class A, class B>
  __device__ __forceinline__ static void multiply(Accumulators<Tile>& acc, const float* a, const float* b, int m,
                                                  int n) {
#pragma unroll
    for (int step = 0; step < kStageDepth<float> / 8; ++step) {
      std::uint32_t fb[Tile::kWarpN / 16][4];
#pragma unroll
      for (int j = 0; j < Tile::kWarpN / 16; ++j) {
        load_b<B>(fb[j], b, n + 16 * j, step);
#pragma unroll
        for (int r = 0; r < 4; ++r) fb[j][r] = to_tf32(__uint_as_float(fb[j][r]));
      }
#pragma unroll
      for (int i = 0; i < Tile::kWarpM / 16; ++i) {
        std::uint32_t fa[4];
        load_a<A>(fa, a, m + 16 * i, step);
#pragma unroll
        for (int r = 0; r < 4; ++r) fa[r] = to_tf32(__uint_as_float(fa[r]));
#pragma unroll
        for (int j = 0; j < Tile::kWarpN / 8; ++j) {
          const std::uint32_t pair[2] = {fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]};
          mma_m16n8k8_tf32(acc.d[i][j], fa, pair);
        }
      }
    }
  }
};

struct Tf32x3 : MmaPlaces {
  using Element = float;

  template <class Tile, class A, class B>
  __device__ __forceinline__ static void multiply(Accumulators<Tile>& acc, const float* a, const float* b, int m,
                                                  int n) {
#pragma unroll
    for (int step = 0; step < kStageDepth<float> / 8; ++step) {
      std::uint32_t high[Tile::kWarpN / 16][4], low[Tile::kWarpN / 16][4];
#pragma unroll
      for (int j = 0; j < Tile::kWarpN / 16; ++j) {
        load_b<B>(high[j], b, n + 16 * j, step);
        split(high[j], low[j]);
      }
#pragma unroll
      for (int i = 0; i < Tile::kWarpM / 16; ++i) {
        std::uint32_t high_a[4], low_a[4];
        load_a<A>(high_a, a, m + 16 * i, step);
        split(high_a, low_a);
        // The small products first. All of one kind in a row: those that follow each other add to different sums.
#pragma unroll
        for (int kind = 0; kind < 3; ++kind) {
#pragma unroll
          for (int j = 0; j < Tile::kWarpN / 8; ++j) {
            const std::uint32_t (&of_b)[4] = (kind == 1 ? low : high)[j / 2];
            const std::uint32_t b_pair[2] = {of_b[j % 2 * 2], of_b[j % 2 * 2 + 1]};
            mma_m16n8k8_tf32(acc.d[i][j], kind == 0 ? low_a : high_a, b_pair);
          }
        }
      }
    }
  }

 private:
  __device__ __forceinline__ static void split(std::uint32_t (&v)[4], std::uint32_t (&low)[4]) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const auto parts = split_tf32(__uint_as_float(v[r]));
      v[r] = parts.high;
      low[r] = parts.low;
    }
  }
};

// A thread multiplies kRows lines of A by kColumns of B, four steps of depth at a time. Along depth it reads four steps
// of a line by one access, along lines four lines of a step: rows and columns are then numbered so that these are
// neighbours.
struct Ffma {
  using Element = float;

  template <Along kA>
  __device__ __forceinline__ static constexpr int row(int i) {
    return kA == Along::kDepth ? 8 * i : i / 4 * 32 + i % 4;
  }
  template <Along kB>
  __device__ __forceinline__ static constexpr int column(int j) {
    return kB == Along::kDepth ? j / 2 * 8 + j % 2 : j / 4 * 16 + j % 4;
  }
  template <Along kA>
  __device__ __forceinline__ static int first_row() {
    return lane_id() / 4 * (kA == Along::kDepth ? 1 : 4);
  }
  template <Along kB>
  __device__ __forceinline__ static int first_column() {
    return lane_id() % 4 * (kB == Along::kDepth ? 2 : 4);
  }

  template <class Tile, class A, class B>
  __device__ __forceinline__ static void multiply(Accumulators<Tile>& acc, const float* a, const float* b, int m,
                                                  int n) {
    static_assert(Tile::kWarpM % 32 == 0 || A::kRuns == Along::kDepth);
    const int line_a = m + first_row<A::kRuns>(), line_b = n + first_column<B::kRuns>();
#pragma unroll 1  // all at once need more registers than there are
    for (int depth = 0; depth < kStageDepth<float>; depth += 4) {
      float va[Tile::kRows][4], vb[Tile::kColumns][4];
      load<A, Tile::kRows>(va, a, [&](int i) { return line_a + row<A::kRuns>(i); }, depth);
      load<B, Tile::kColumns>(vb, b, [&](int j) { return line_b + column<B::kRuns>(j); }, depth);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
#pragma unroll
        for (int i = 0; i < Tile::kRows; ++i) {
#pragma unroll
          for (int j = 0; j < Tile::kColumns; ++j) acc.at(i, j) = __fmaf_rn(va[i][k], vb[j][k], acc.at(i, j));
        }
      }
    }
  }

 private:
  // v[i][k] = element of line(i) and depth + k
  template <class Op, int kCount, class Line>
  __device__ __forceinline__ static void load(float (&v)[kCount][4], const float* tile, const Line& line, int depth) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if constexpr (Op::kRuns == Along::kDepth) {
        load_floats(tile + Op::element(line(i), depth), v[i]);
      } else if (i % 4 == 0) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          float lines[4];
          load_floats(tile + Op::element(line(i), depth + k), lines);
#pragma unroll
          for (int l = 0; l < 4; ++l) v[i + l][k] = lines[l];
        }
      }
    }
  }
};

}  // namespace stapes::cuda
