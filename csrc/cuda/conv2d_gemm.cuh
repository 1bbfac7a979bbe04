// The implicit GEMM of all convolutions: D[m,n] = sum over k of A[m,k] * B[n,k], then an epilogue on D.
//
// Layout and requirements: A and B are sources (conv2d_sources.cuh); nothing is required of sizes or alignment here.
// Work: a block makes one Tile of D (conv2d_tile.cuh) of one part of the problem, see below; its threads bring the
//   operands' next stages of 64 bytes of depth by cp.async into a ring of kStages buffers while its warps multiply the
//   oldest one (conv2d_math.cuh). One barrier a stage. Accumulators stay in registers up to the epilogue.
// Launch bounds: kThreads = 32 * warps of the tile; registers limited so that Tile::kBlocks blocks fit on an SM;
//   dynamic shared memory of shared_bytes().
// Numerics: float32 accumulation over depth in order; neither the tile nor the kind of source changes a bit.
// Source: the pipeline is that of CUTLASS's multistage mainloop (github.com/NVIDIA/cutlass, media/docs/efficient_gemm).
// Measured: not measured.
//
// What a Problem has:
//   using Math;  using A, B;  using Epilogue;  BlockGrid blocks;
//   template <class Tile> __device__ Part<A, B, Epilogue> part(int block) const
// and what an Epilogue has:
//   template <class Tile, class Place> __device__ void operator()(const Accumulators<Tile>&, const Place&) const
// Place tells the m and n of the thread's accumulators. All threads call it, after all is read from shared memory by
// the thread itself, not by the others: who needs shared memory in an epilogue begins with __syncthreads().
#pragma once

#include <stdexcept>

#include "cuda/conv2d_load.cuh"
#include "cuda/conv2d_math.cuh"

namespace stapes::cuda {

// What a block does: its operands, its tile's first lines, the depth to sum over.
template <class A, class B, class Epilogue>
struct Part {
  A a;
  B b;
  Epilogue epilogue;
  int m, n, depth_begin, depth_end;  // depth_begin is a multiple of the stage's depth
};

// Blocks in a row: the tiles of n, of m, then the problem's copies (groups, classes, splits).
struct BlockGrid {
  unsigned tiles_m, tiles_n, copies;

  struct Place {
    int m, n, copy;  // the tile's first lines
  };
  template <class Tile>
  __device__ __forceinline__ Place place(unsigned block) const {
    const unsigned rest = block / tiles_n, copy = rest / tiles_m;
    return {static_cast<int>(rest - copy * tiles_m) * Tile::kM, static_cast<int>(block - rest * tiles_n) * Tile::kN,
            static_cast<int>(copy)};
  }
};

template <class Problem, class Tile>
struct GemmOperands {
  using T = typename Problem::Math::Element;
  using A = Operand<T, Problem::A::kAlong, Tile::kM>;
  using B = Operand<T, Problem::B::kAlong, Tile::kN>;
  static constexpr int kStage = A::kElements + B::kElements;
  static constexpr std::size_t kSharedBytes = sizeof(T) * kStage * Tile::kStages;
};

// For how many blocks on an SM registers are kept: before sm_80 its shared memory holds one of the larger tiles.
template <class Tile>
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
inline constexpr int kBlocksOnSm = 1;
#else
inline constexpr int kBlocksOnSm = Tile::kBlocks;
#endif

template <class Problem, class Tile>
__global__ void __launch_bounds__(Tile::kThreads, kBlocksOnSm<Tile>) conv2d_gemm_kernel(const Problem problem) {
  using Math = typename Problem::Math;
  using T = typename Math::Element;
  using Operands = GemmOperands<Problem, Tile>;
  using OpA = typename Operands::A;
  using OpB = typename Operands::B;
  constexpr int kAhead = Tile::kStages - 1;
  STAPES_DYN_SHARED(T, shared);

  const auto part = problem.template part<Tile>(blockIdx.x);
  Loader<typename Problem::A, OpA, Tile::kThreads> a(part.a, part.m, part.depth_begin);
  Loader<typename Problem::B, OpB, Tile::kThreads> b(part.b, part.n, part.depth_begin);
  const auto buffer = [&](int slot) { return shared + slot * Operands::kStage; };
  const int stages = ceil_div(part.depth_end - part.depth_begin, OpA::kDepth);
#pragma unroll
  for (int s = 0; s < kAhead; ++s) {
    if (s < stages) {
      a.fetch(buffer(s));
      b.fetch(buffer(s) + OpA::kElements);
      a.store(buffer(s));
      b.store(buffer(s) + OpA::kElements);
    }
    cp_async_commit();
  }

  const int warp = thread_id() / 32;
  const int warp_m = warp % Tile::kWarpsM * Tile::kWarpM, warp_n = warp / Tile::kWarpsM * Tile::kWarpN;
  Accumulators<Tile> acc;
  acc.clear();
  int reading = 0, filling = kAhead;
  for (int stage = 0; stage < stages; ++stage) {
    cp_async_wait<kAhead - 1>();
    __syncthreads();  // this stage has arrived, and nobody reads the one before it any more
    const bool more = stage + kAhead < stages;
    T* const next = buffer(filling);
    if (more) {
      a.fetch(next);
      b.fetch(next + OpA::kElements);
    }
    cp_async_commit();
    const T* const now = buffer(reading);
    Math::template multiply<Tile, OpA, OpB>(acc, now, now + OpA::kElements, warp_m, warp_n);
    if (more) {
      a.store(next);
      b.store(next + OpA::kElements);
    }
    reading = reading + 1 < Tile::kStages ? reading + 1 : 0;
    filling = filling + 1 < Tile::kStages ? filling + 1 : 0;
  }

  const ElementPlace<Math, OpA::kRuns, OpB::kRuns> place{part.m + warp_m + Math::template first_row<OpA::kRuns>(),
                                                         part.n + warp_n + Math::template first_column<OpB::kRuns>()};
  part.epilogue(acc, place);
}

// M x N of D, `copies` times.
template <class Tile, class Problem>
void launch_gemm(Problem problem, std::int64_t M, std::int64_t N, std::int64_t copies, Stream stream) {
  const std::int64_t tiles_m = ceil_div<std::int64_t>(M, Tile::kM), tiles_n = ceil_div<std::int64_t>(N, Tile::kN);
  const std::int64_t blocks = tiles_m * tiles_n * copies;
  if (blocks > INT32_MAX) throw std::invalid_argument("a convolution on CUDA has at most 2^31 - 1 tiles");
  problem.blocks = {static_cast<unsigned>(tiles_m), static_cast<unsigned>(tiles_n), static_cast<unsigned>(copies)};
  launch(conv2d_gemm_kernel<Problem, Tile>, dim3(static_cast<unsigned>(blocks)), dim3(Tile::kThreads),
         GemmOperands<Problem, Tile>::kSharedBytes, stream, problem);
}

}  // namespace stapes::cuda
