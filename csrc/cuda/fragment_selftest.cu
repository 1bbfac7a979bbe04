// fragment_selftest
//   d = a b, of one mma instruction, with the operands brought in each way that kernels use
// Layout: row-major; see fragment_selftest.hpp.
// Work: one warp, one block.
// Numerics: float32 accumulation.
// Source: PTX manual, "Matrix fragments for mma", "ldmatrix".
// Measured: not measured; it is a test.
#include "cuda/fragment_selftest.hpp"
#include "cuda/mma.cuh"

namespace stapes::cuda {
namespace {

constexpr int kM = 16, kN = 8;

struct Lane {
  int id = static_cast<int>(threadIdx.x);
  int g = id / 4, t = id % 4;
};

__device__ void store_d(float* d, const float (&v)[4], const Lane& lane) {
  for (int e = 0; e < 4; ++e) d[(lane.g + e / 2 * 8) * kN + lane.t * 2 + e % 2] = v[e];
}

// Two neighbours of a row of a, or of a column of b, in one register.
__device__ std::uint32_t pair(const std::uint16_t* p, int step) {
  return p[0] | static_cast<std::uint32_t>(p[step]) << 16;
}

template <Mma kMma, int kRegsA, int kRegsB>
__device__ void mma(float (&d)[4], const std::uint32_t (&a)[kRegsA], const std::uint32_t (&b)[kRegsB]) {
  if constexpr (kMma == Mma::kM16N8K16Bf16) mma_m16n8k16_bf16(d, a, b);
  if constexpr (kMma == Mma::kM16N8K16F16) mma_m16n8k16_f16(d, a, b);
  if constexpr (kMma == Mma::kM16N8K8F16) mma_m16n8k8_f16(d, a, b);
}

template <Mma kMma>
__global__ void __launch_bounds__(32)
    fragment_16bit_kernel(const std::uint16_t* a, const std::uint16_t* b, const std::uint16_t* bt, float* d) {
  constexpr int kK = kMma == Mma::kM16N8K8F16 ? 8 : 16, kRegsA = kK / 4, kRegsB = kK / 8;
  __shared__ __align__(16) std::uint16_t shared_a[kM * kK];
  __shared__ __align__(16) std::uint16_t shared_b[kK * kN];
  __shared__ __align__(16) std::uint16_t shared_bt[kN * kK];
  const Lane lane;
  if (lane.id < kM * kK / 8) store_vec(shared_a + lane.id * 8, load_vec<uint4>(a + lane.id * 8));
  if (lane.id < kK) store_vec(shared_b + lane.id * 8, load_vec<uint4>(b + lane.id * 8));
  if (lane.id < kK) store_vec(shared_bt + lane.id * 8, load_vec<uint4>(bt + lane.id * 8));
  __syncwarp();

  std::uint32_t frag_a[kRegsA];
  std::uint32_t frag_b[2], frag_bt[2];  // ldmatrix x2, of which k8 takes the first register
  if constexpr (kK == 16) {
    ldmatrix_x4(frag_a, shared_a + lane.id % 16 * kK + lane.id / 16 * 8);
  } else {
    ldmatrix_x2(frag_a, shared_a + lane.id % 16 * kK);
  }
  ldmatrix_x2<true>(frag_b, shared_b + lane.id % kK * kN);
  ldmatrix_x2(frag_bt, shared_bt + lane.id % 8 * kK + lane.id / 8 % kRegsB * 8);
  float by_trans[4] = {}, by_bt[4] = {}, by_element[4] = {};
  std::uint32_t used_b[kRegsB], used_bt[kRegsB];
  for (int r = 0; r < kRegsB; ++r) used_b[r] = frag_b[r], used_bt[r] = frag_bt[r];
  mma<kMma>(by_trans, frag_a, used_b);
  mma<kMma>(by_bt, frag_a, used_bt);

  std::uint32_t own_a[kRegsA], own_b[kRegsB];
  for (int r = 0; r < kRegsA; ++r) own_a[r] = pair(a + (lane.g + r % 2 * 8) * kK + lane.t * 2 + r / 2 * 8, 1);
  for (int r = 0; r < kRegsB; ++r) own_b[r] = pair(b + (lane.t * 2 + r * 8) * kN + lane.g, kN);
  mma<kMma>(by_element, own_a, own_b);
  store_d(d, by_trans, lane);
  store_d(d + kM * kN, by_bt, lane);
  store_d(d + 2 * kM * kN, by_element, lane);
}

template <bool kSplit>
__global__ void __launch_bounds__(32) fragment_tf32_kernel(const float* a, const float* bt, float* d) {
  constexpr int kK = 8;
  const Lane lane;
  std::uint32_t high_a[4], low_a[4], high_b[2], low_b[2];
  for (int r = 0; r < 4; ++r) {
    const Tf32Split v = split_tf32(a[(lane.g + r % 2 * 8) * kK + lane.t + r / 2 * 4]);
    high_a[r] = v.high;
    low_a[r] = v.low;
  }
  for (int r = 0; r < 2; ++r) {
    const Tf32Split v = split_tf32(bt[lane.g * kK + lane.t + r * 4]);
    high_b[r] = v.high;
    low_b[r] = v.low;
  }
  float v[4] = {};
  if constexpr (kSplit) {
    mma_m16n8k8_tf32(v, low_a, high_b);
    mma_m16n8k8_tf32(v, high_a, low_b);
  }
  mma_m16n8k8_tf32(v, high_a, high_b);
  for (int i = 0; i < 3; ++i) store_d(d + i * kM * kN, v, lane);
}

template <Mma kMma>
void run_16bit(const FragmentSelftestArgs& x, Stream stream) {
  launch(fragment_16bit_kernel<kMma>, 1, 32, 0, stream, static_cast<const std::uint16_t*>(x.a),
         static_cast<const std::uint16_t*>(x.b), static_cast<const std::uint16_t*>(x.bt), x.d);
}

template <bool kSplit>
void run_tf32(const FragmentSelftestArgs& x, Stream stream) {
  launch(fragment_tf32_kernel<kSplit>, 1, 32, 0, stream, static_cast<const float*>(x.a),
         static_cast<const float*>(x.bt), x.d);
}

}  // namespace

void fragment_selftest(const FragmentSelftestArgs& x, Stream stream) {
  switch (x.mma) {
    case Mma::kM16N8K16Bf16: return run_16bit<Mma::kM16N8K16Bf16>(x, stream);
    case Mma::kM16N8K16F16: return run_16bit<Mma::kM16N8K16F16>(x, stream);
    case Mma::kM16N8K8F16: return run_16bit<Mma::kM16N8K8F16>(x, stream);
    case Mma::kM16N8K8Tf32: return run_tf32<false>(x, stream);
    case Mma::kM16N8K8Tf32x3: return run_tf32<true>(x, stream);
  }
}

}  // namespace stapes::cuda
