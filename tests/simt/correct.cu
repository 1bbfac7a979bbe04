// Kernels without a fault: every check must stay silent, and the numbers must be right.
#include "cuda/fragment_selftest.hpp"
#include "harness.hpp"

namespace {

const Case kFragments{"fragments", [](const Args& a) {
                        fragment_selftest(
                            {static_cast<Mma>(a.number), a.as<void>(0), a.as<void>(1), a.as<void>(2), a.as<float>(3)},
                            nullptr);
                      }};

__global__ void __launch_bounds__(128) row_statistics_kernel(const float* x, float* y, std::int64_t columns) {
  __shared__ float red[4];
  const float* row = x + blockIdx.x * columns;
  float largest = -INFINITY, sum = 0.0f;
  for (std::int64_t i = threadIdx.x; i < columns; i += 128) {
    largest = Max()(largest, row[i]);
    sum += row[i];
  }
  largest = block_reduce<128>(largest, Max(), -INFINITY, red);
  sum = block_reduce<128>(sum, Sum(), 0.0f, red);
  if (threadIdx.x == 0) store_vec(y + 2 * blockIdx.x, make_float2(largest, sum));
}
const Case kRowStatistics{"row_statistics", [](const Args& a) {
                            launch(row_statistics_kernel, 3, 128, 0, nullptr, a.as<const float>(0), a.as<float>(1),
                                   a.number);
                          }};

// Each block adds a part; the one that counts itself last adds up the parts.
__global__ void __launch_bounds__(128)
    sum_kernel(const float* x, std::int64_t size, float* parts, unsigned* count, float* y) {
  __shared__ float red[4];
  __shared__ bool last;
  float sum = 0.0f;
  for (std::int64_t i = blockIdx.x * 128 + threadIdx.x; i < size; i += gridDim.x * 128) sum += x[i];
  sum = block_reduce<128>(sum, Sum(), 0.0f, red);
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = sum;
    __threadfence();
    last = atomicAdd(count, 1u) + 1 == gridDim.x;
  }
  __syncthreads();
  if (!last) return;
  sum = threadIdx.x < gridDim.x ? parts[threadIdx.x] : 0.0f;
  sum = block_reduce<128>(sum, Sum(), 0.0f, red);
  if (threadIdx.x == 0) *y = sum;
}
const Case kSum{"sum", [](const Args& a) {
                  constexpr unsigned kBlocks = 5;
                  const Workspace parts(kBlocks * sizeof(float), nullptr), count(sizeof(unsigned), nullptr);
                  zero(count.data(), sizeof(unsigned), nullptr);
                  launch(sum_kernel, kBlocks, 128, 0, nullptr, a.as<const float>(0), a.number, parts.as<float>(),
                         count.as<unsigned>(), a.as<float>(1));
                }};

// y = the sum of the rows of x, in tiles of 4 rows, two tiles in flight. Rows past the end arrive as zeros.
__global__ void __launch_bounds__(64) pipeline_kernel(const float* x, std::int64_t rows, float* y) {
  constexpr int kColumns = 64, kRows = 4, kTile = kRows * kColumns;
  STAPES_DYN_SHARED(float, tiles);
  const int t = static_cast<int>(threadIdx.x);
  const auto load = [&](std::int64_t tile) {
    const std::int64_t row = tile * kRows + t / 16;
    float* to = tiles + tile % 2 * kTile + t * 4;
    cp_async16(to, row < rows ? x + row * kColumns + t % 16 * 4 : x, row < rows);
    cp_async_commit();
  };
  const std::int64_t count = ceil_div<std::int64_t>(rows, kRows);
  float sum = 0.0f;
  load(0);
  for (std::int64_t tile = 0; tile < count; ++tile) {
    load(tile + 1);  // one past the end: zeros only
    cp_async_wait<1>();
    __syncthreads();
    for (int r = 0; r < kRows; ++r) sum += tiles[tile % 2 * kTile + r * kColumns + t];
    __syncthreads();
  }
  cp_async_wait<0>();
  y[t] = sum;
}
const Case kPipeline{"pipeline", [](const Args& a) {
                       launch(pipeline_kernel, 1, 64, 2 * 4 * 64 * sizeof(float), nullptr, a.as<const float>(0),
                              a.number, a.as<float>(1));
                     }};

// Neighbouring bytes belong to different threads, of different blocks too.
__global__ void bytes_kernel(const std::uint8_t* x, std::uint8_t* y, std::int64_t size) {
  __shared__ std::uint8_t s[40];
  const std::int64_t i = blockIdx.x * 40 + threadIdx.x;
  if (i < size) s[threadIdx.x] = x[i];
  __syncthreads();
  const std::int64_t end = size - blockIdx.x * 40 < 40 ? size : blockIdx.x * 40 + 40;
  if (i < size) y[i] = s[end - 1 - i];
}
const Case kBytes{"reverse_bytes_of_blocks", [](const Args& a) {
                    launch(bytes_kernel, static_cast<unsigned>(ceil_div<std::int64_t>(a.number, 40)), 40, 0, nullptr,
                           a.as<const std::uint8_t>(0), a.as<std::uint8_t>(1), a.number);
                  }};

struct Table {
  double factors[500];
};
__constant__ const std::int64_t kOffsets[4] = {0, 10, 200, 3000};

template <class F>
__global__ void arguments_kernel(const Table table, F f, const std::int64_t* __restrict__ x, double* __restrict__ y) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  y[i] = table.factors[i] * static_cast<double>(f(x[i]) + kOffsets[i % 4]);
}
const Case kArguments{"arguments", [](const Args& a) {
                        Table table;
                        for (int i = 0; i < 500; ++i) table.factors[i] = i + 1;
                        const auto f = [by = a.number](std::int64_t v) { return v + by; };
                        launch(arguments_kernel<decltype(f)>, 2, 32, 0, nullptr, table, f, a.as<const std::int64_t>(0),
                               a.as<double>(1));
                      }};

// 16 bits to float and back, eight at a time. number: how many eights.
template <class T>
__global__ void convert_kernel(const T* x, float* wide, const float* v, T* narrow, std::int64_t eights) {
  const std::int64_t i = blockIdx.x * 256 + threadIdx.x;
  if (i >= eights) return;
  float floats[8];
  load_floats(x + 8 * i, floats);
  for (int e = 0; e < 8; ++e) wide[8 * i + e] = floats[e];
  for (int e = 0; e < 8; ++e) floats[e] = v[8 * i + e];
  store_floats(narrow + 8 * i, floats);
}
template <class T>
void convert(const Args& a) {
  launch(convert_kernel<T>, static_cast<unsigned>(ceil_div<std::int64_t>(a.number, 256)), 256, 0, nullptr,
         a.as<const T>(0), a.as<float>(1), a.as<const float>(2), a.as<T>(3), a.number);
}
const Case kConvertHalf{"convert_float16", convert<half>};
const Case kConvertBfloat16{"convert_bfloat16", convert<bfloat16>};

// One word for each lane and intrinsic.
__global__ void intrinsics_kernel(unsigned* y) {
  const int lane = static_cast<int>(threadIdx.x);
  y[lane] = __ballot_sync(~0u, lane % 3 == 0);
  y[32 + lane] = static_cast<unsigned>(__shfl_up_sync(~0u, lane, 1));
  y[64 + lane] = static_cast<unsigned>(__shfl_down_sync(~0u, lane, 4, 8));
  y[96 + lane] = static_cast<unsigned>(__shfl_sync(~0u, lane, 5, 16));
  y[128 + lane] = static_cast<unsigned>(__any_sync(~0u, lane == 7) + 2 * __all_sync(~0u, lane < 31));
  y[160 + lane] = static_cast<unsigned>(__popc(static_cast<unsigned>(lane)) + 100 * __ffs(lane));
  y[192 + lane] = __umulhi(0x80000000u, static_cast<unsigned>(lane));
  y[224 + lane] = __float_as_uint(__fmaf_rn(static_cast<float>(lane), rsqrtf(4.0f), 1.0f));
}
const Case kIntrinsics{"intrinsics",
                       [](const Args& a) { launch(intrinsics_kernel, 1, 32, 0, nullptr, a.as<unsigned>(0)); }};

// x and y may be the same array.
__global__ void double_kernel(const float* x, float* y) { y[threadIdx.x] = 2.0f * x[threadIdx.x]; }
const Case kDouble{"double", [](const Args& a) {
                     launch(double_kernel, 1, static_cast<unsigned>(a.number), 0, nullptr, a.as<const float>(0),
                            a.as<float>(1));
                   }};

}  // namespace
