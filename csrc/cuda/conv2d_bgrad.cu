// db[k] = sum over rows of dy (rows, K), a row being a pixel (or a sample: linear)
// Layout: dy float32, float16 or bfloat16, db float32. Any sizes and addresses; pieces of 16 bytes are read where K and
//   the address are multiples of that.
// Work: chunks of rows, their number fixed by the shape. A block takes 8 pieces of a chunk's rows with 32 x 8 threads:
//   thread (y, x) sums rows y, y + 32, ... of piece x in registers, then the 32 sums of a channel are added in shared
//   memory. The chunks' sums go through ordered_sum.
// Launch bounds: 256 threads, 8 KB of shared memory at most.
// Numerics: float32; the order is that of rows, lanes and chunks, whatever the alignment. Overwrites.
// Measured: not measured.
#include "cuda/dtype.cuh"
#include "cuda/ordered_sum.cuh"
#include "cuda/primitives.cuh"
#include "ops/kernels.hpp"

namespace stapes::cuda {
namespace {

constexpr int kLanes = 32, kPieces = 8;
constexpr std::int64_t kLeastRows = 512, kMostChunks = 1024;

// Elements of a piece: kVec<T>, or 1 where pieces of 16 bytes cannot be read.
template <class T, int kPiece>
__global__ void __launch_bounds__(kLanes* kPieces)
    conv2d_bgrad_kernel(const T* dy, float* partials, std::int64_t rows, std::int64_t K, std::int64_t chunk_rows) {
  __shared__ float sums[kLanes][kPieces * kPiece];
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const std::int64_t groups = ceil_div<std::int64_t>(K, kPieces * kPiece);  // of channels
  const std::int64_t chunk = blockIdx.x / groups, first = blockIdx.x % groups * (kPieces * kPiece);
  const std::int64_t k = first + x * kPiece, begin = chunk * chunk_rows, end = min(begin + chunk_rows, rows);

  float sum[kPiece] = {};
  if (k < K) {
    for (std::int64_t row = begin + y; row < end; row += kLanes) {
      if constexpr (kPiece == 1) {
        sum[0] += to_float(dy[row * K + k]);
      } else {
        float v[kPiece];
        load_floats(dy + row * K + k, v);
#pragma unroll
        for (int i = 0; i < kPiece; ++i) sum[i] += v[i];
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kPiece; ++i) sums[y][x * kPiece + i] = sum[i];
  __syncthreads();
  const int column = y * kPieces + x;
  if (column >= kPieces * kPiece || first + column >= K) return;
  float total = 0.0f;
#pragma unroll
  for (int lane = 0; lane < kLanes; ++lane) total += sums[lane][column];
  partials[chunk * K + first + column] = total;
}

}  // namespace

void conv2d_bgrad(const Conv2dBgradArgs& args, Stream stream) {
  float* const db = static_cast<float*>(args.db);
  const std::int64_t chunk_rows = std::max(kLeastRows, ceil_div(args.rows, kMostChunks));
  const std::int64_t chunks = ceil_div(args.rows, chunk_rows);
  const Workspace partials(sizeof(float) * static_cast<std::size_t>(chunks == 1 ? 0 : chunks * args.K), stream);
  float* const to = chunks == 1 ? db : partials.as<float>();
  with_cuda_dtype(args.dtype, [&]<class T>(T) {
    const T* const dy = static_cast<const T*>(args.dy);
    const auto run = [&](auto kernel, int piece) {
      const std::int64_t blocks = chunks * ceil_div<std::int64_t>(args.K, kPieces * piece);
      launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kPieces, kLanes), 0, stream, dy, to, args.rows, args.K,
             chunk_rows);
    };
    if (args.K % kVec<T> == 0 && reinterpret_cast<std::uintptr_t>(dy) % 16 == 0) {
      run(conv2d_bgrad_kernel<T, kVec<T>>, kVec<T>);
    } else {
      run(conv2d_bgrad_kernel<T, 1>, 1);
    }
  });
  if (chunks != 1) ordered_sum(to, static_cast<int>(chunks), args.K, args.K, db, stream);
}

}  // namespace stapes::cuda
