// db[k] = sum over rows of dy (rows, K), a row being a pixel (or a sample: linear); or being a pooling window, which
// counts where argmax (rows, K) names one of its places
// Layout: dy float32, float16 or bfloat16, db float32. Any sizes and addresses; pieces of 16 bytes are read where K and
//   the address are multiples of that.
// Work: chunks of rows, their number fixed by the shape. A block takes 8 pieces of a chunk's rows with 32 x 8 threads:
//   thread (y, x) sums rows y, y + 32, ... of piece x in registers, then the 32 sums of a channel are added in shared
//   memory. The chunks' sums go through ordered_sum.
// Launch bounds: 256 threads, 8 KB of shared memory at most.
// Numerics: float32; the order is that of rows, lanes and chunks, whatever the alignment. Overwrites.
// Measured: not measured.
#include "cuda/conv2d_bgrad.cuh"
#include "cuda/dtype.cuh"
#include "cuda/ordered_sum.cuh"
#include "cuda/primitives.cuh"

namespace stapes::cuda {
namespace {

constexpr int kLanes = 32, kPieces = 8;
constexpr std::int64_t kLeastRows = 512, kMostChunks = 1024;

template <class T>
struct Rows {
  const T* dy;
  const std::uint8_t* argmax;  // null where rows are pixels
  unsigned places;             // of a window
  float* partials;
  std::int64_t rows, K, chunk_rows;
};

// v[i] = 0 where argmax[i] is no place of a window.
template <int kPiece>
__device__ __forceinline__ void drop_dead(const std::uint8_t* argmax, unsigned places, float (&v)[kPiece]) {
  std::uint32_t words[(kPiece + 3) / 4];
  if constexpr (kPiece == 1) {
    words[0] = *argmax;
  } else if constexpr (kPiece == 4) {
    words[0] = load_vec<std::uint32_t>(argmax);
  } else {
    static_assert(kPiece == 8);
    const uint2 two = load_vec<uint2>(argmax);
    words[0] = two.x;
    words[1] = two.y;
  }
#pragma unroll
  for (int i = 0; i < kPiece; ++i)
    if ((words[i / 4] >> (8 * (i % 4)) & 0xffu) >= places) v[i] = 0.0f;
}

// Elements of a piece: kVec<T>, or 1 where pieces of 16 bytes cannot be read.
template <class T, int kPiece>
__global__ void __launch_bounds__(kLanes* kPieces) conv2d_bgrad_kernel(Rows<T> a) {
  __shared__ float sums[kLanes][kPieces * kPiece];
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const std::int64_t groups = ceil_div<std::int64_t>(a.K, kPieces * kPiece);  // of channels
  const std::int64_t chunk = blockIdx.x / groups, first = blockIdx.x % groups * (kPieces * kPiece);
  const std::int64_t k = first + x * kPiece, begin = chunk * a.chunk_rows, end = min(begin + a.chunk_rows, a.rows);

  float sum[kPiece] = {};
  if (k < a.K) {
    for (std::int64_t row = begin + y; row < end; row += kLanes) {
      const std::int64_t at = row * a.K + k;
      float v[kPiece];
      if constexpr (kPiece == 1) {
        v[0] = to_float(a.dy[at]);
      } else {
        load_floats(a.dy + at, v);
      }
      if (a.argmax != nullptr) drop_dead(a.argmax + at, a.places, v);
#pragma unroll
      for (int i = 0; i < kPiece; ++i) sum[i] += v[i];
    }
  }
#pragma unroll
  for (int i = 0; i < kPiece; ++i) sums[y][x * kPiece + i] = sum[i];
  __syncthreads();
  const int column = y * kPieces + x;
  if (column >= kPieces * kPiece || first + column >= a.K) return;
  float total = 0.0f;
#pragma unroll
  for (int lane = 0; lane < kLanes; ++lane) total += sums[lane][column];
  a.partials[chunk * a.K + first + column] = total;
}

void run(const Conv2dBgradArgs& args, const std::uint8_t* argmax, std::int64_t places, Stream stream) {
  float* const db = static_cast<float*>(args.db);
  const std::int64_t chunk_rows = std::max(kLeastRows, ceil_div(args.rows, kMostChunks));
  const std::int64_t chunks = ceil_div(args.rows, chunk_rows);
  const Workspace partials(sizeof(float) * static_cast<std::size_t>(chunks == 1 ? 0 : chunks * args.K), stream);
  float* const to = chunks == 1 ? db : partials.as<float>();
  with_cuda_dtype(args.dtype, [&]<class T>(T) {
    const Rows<T> rows{
        static_cast<const T*>(args.dy), argmax, static_cast<unsigned>(places), to, args.rows, args.K, chunk_rows};
    const auto run = [&](auto kernel, int piece) {
      const std::int64_t blocks = chunks * ceil_div<std::int64_t>(args.K, kPieces * piece);
      launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kPieces, kLanes), 0, stream, rows);
    };
    const auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
    if (args.K % kVec<T> == 0 && aligned(args.dy) && aligned(argmax)) {
      run(conv2d_bgrad_kernel<T, kVec<T>>, kVec<T>);
    } else {
      run(conv2d_bgrad_kernel<T, 1>, 1);
    }
  });
  if (chunks != 1) ordered_sum(to, static_cast<int>(chunks), args.K, args.K, db, stream);
}

}  // namespace

void conv2d_bgrad(const Conv2dBgradArgs& args, Stream stream) { run(args, nullptr, 0, stream); }

void pooled_bgrad(const Conv2dBgradArgs& args, const std::uint8_t* argmax, std::int64_t places, Stream stream) {
  run(args, argmax, places, stream);
}

}  // namespace stapes::cuda
