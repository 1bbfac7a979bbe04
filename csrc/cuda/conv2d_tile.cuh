// Tiles of the implicit GEMMs behind convolutions: D[m,n] = sum over k of A[m,k] * B[n,k], the m of A and the n of B
// called "lines", k "depth". How operands lie in shared memory, and which numbers of D a thread accumulates.
//
// An operand's tile is stored as its tensor runs, in rows of pieces of 16 bytes:
//   Along::kDepth  rows are lines, a row is the tile's depth (x and w in fwd, dy in dgrad);
//   Along::kLines  rows are steps of depth, a row is the tile's lines (w in dgrad, dy and x in wgrad).
// Pieces are permuted inside their row by a key of the row (offset()), so that what a quarter of a warp (ldmatrix, 16
// byte accesses) or a warp (4 byte accesses) reads at once lies in different banks.
//
// A warp's part of D is kWarpM x kWarpN. With g = lane / 4 and t = lane % 4, element (i, j) of a thread is, counted
// from the warp's corner,
//   row 8i + g, column 8 * (j / 2) + 2t + j % 2:
// the fragments of mma.m16n8. FFMA has the same, except where an operand runs along lines, see Ffma. So rows i, i + 1,
// i + 2, i + 3 (i % 4 == 0) of a thread are 8 apart: an epilogue that pools gives these four to one window.
#pragma once

#include "cuda/primitives.cuh"

namespace stapes::cuda {

enum class Along { kDepth, kLines };

__device__ __forceinline__ int thread_id() { return static_cast<int>(threadIdx.x); }
__device__ __forceinline__ int lane_id() { return static_cast<int>(threadIdx.x) % 32; }

// kM x kN of D for a block, in warps of kWarpM x kWarpN; kBlocks: blocks that should fit on an SM.
template <int M, int N, int WarpM, int WarpN, int Stages, int Blocks>
struct Tile {
  static constexpr int kM = M, kN = N, kWarpM = WarpM, kWarpN = WarpN, kStages = Stages, kBlocks = Blocks;
  static constexpr int kWarpsM = M / WarpM, kThreads = 32 * kWarpsM * (N / WarpN);
  static constexpr int kRows = WarpM / 8, kColumns = WarpN / 4;  // of D, for each thread
  static_assert(M % WarpM == 0 && N % WarpN == 0 && WarpM % 16 == 0 && WarpN % 16 == 0 && Stages >= 2);
};

// Depth of a stage: 64 bytes of an operand's line.
template <class T>
inline constexpr int kStageDepth = 64 / static_cast<int>(sizeof(T));

// One operand's tile of a stage.
template <class T, Along kAlong, int kLineCount>
struct Operand {
  using Element = T;
  static constexpr Along kRuns = kAlong;
  static constexpr int kLines = kLineCount, kDepth = kStageDepth<T>;
  static constexpr int kRows = kAlong == Along::kDepth ? kLines : kDepth;
  static constexpr int kPieces = (kAlong == Along::kDepth ? kDepth : kLines) / kVec<T>;  // of a row
  static constexpr int kElements = kRows * kPieces * kVec<T>;
  static_assert(kPieces == 4 || kPieces == 8 || kPieces == 16 || kPieces == 32);

  // Where a piece lies, in elements.
  __device__ __forceinline__ static int offset(int row, int piece) {
    int key;
    if constexpr (kPieces == 4) {
      key = row >> 1 & 3;  // two rows fill the banks
    } else if constexpr (sizeof(T) == 4 && kAlong == Along::kLines) {
      key = (row & 3) << 1 | (row >> 2 & 1);  // Tf32 reads 4 rows of 8 lines at once, two pieces each
    } else {
      key = row & 7;
    }
    return (row * kPieces + (piece ^ key)) * kVec<T>;
  }

  // Element of a line and a depth.
  __device__ __forceinline__ static int element(int line, int depth) {
    const int row = kAlong == Along::kDepth ? line : depth, column = kAlong == Along::kDepth ? depth : line;
    return offset(row, column / kVec<T>) + column % kVec<T>;
  }
};

// A thread's part of D, as mma has it.
template <class Tile>
struct Accumulators {
  float d[Tile::kWarpM / 16][Tile::kWarpN / 8][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < Tile::kRows; ++i) {
#pragma unroll
      for (int j = 0; j < Tile::kColumns; ++j) at(i, j) = 0.0f;
    }
  }
  __device__ __forceinline__ float& at(int i, int j) { return d[i / 2][j / 2][i % 2 * 2 + j % 2]; }
  __device__ __forceinline__ float at(int i, int j) const { return d[i / 2][j / 2][i % 2 * 2 + j % 2]; }
};

// Which m and n a thread's element (i, j) is. Columns j and j + 1 (j even) are neighbours, the first one even.
template <class Math, Along kA, Along kB>
struct ElementPlace {
  int m, n;  // of element (0, 0)

  __device__ __forceinline__ int row(int i) const { return m + Math::template row<kA>(i); }
  __device__ __forceinline__ int column(int j) const { return n + Math::template column<kB>(j); }
};

}  // namespace stapes::cuda
