// Kernels with one fault of control flow each. "fault:" marks a line that the report must name.
#include "harness.hpp"

namespace {

__global__ void divergent_barrier_kernel() {
  if (threadIdx.x < 32) {
    __syncthreads();  // fault: divergent_barrier
  } else {
    __syncthreads();  // fault: divergent_barrier
  }
}
const Case kDivergentBarrier{"divergent_barrier",
                             [](const Args&) { launch(divergent_barrier_kernel, 1, 64, 0, nullptr); }};

__global__ void exited_before_barrier_kernel() {
  if (threadIdx.x >= 48) return;
  __syncthreads();  // fault: exited_before_barrier
}
const Case kExitedBeforeBarrier{"exited_before_barrier",
                                [](const Args&) { launch(exited_before_barrier_kernel, 1, 64, 0, nullptr); }};

__global__ void absent_lane_kernel(float* y) {
  if (threadIdx.x < 16) {
    y[threadIdx.x] = __shfl_down_sync(0xffffu, 1.0f, 8);  // fault: absent_lane
  }
}
const Case kAbsentLane{"absent_lane",
                       [](const Args& a) { launch(absent_lane_kernel, 1, 32, 0, nullptr, a.as<float>(0)); }};

__global__ void mask_without_caller_kernel(float* y) {
  y[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 0);  // fault: mask_without_caller
}
const Case kMaskWithoutCaller{"mask_without_caller", [](const Args& a) {
                                launch(mask_without_caller_kernel, 1, 32, 0, nullptr, a.as<float>(0));
                              }};

__global__ void different_collectives_kernel(float* y) {
  float v = 1.0f;
  if (threadIdx.x < 16) {
    v = __shfl_xor_sync(~0u, v, 1);  // fault: different_collectives
  } else {
    v = __shfl_xor_sync(~0u, v, 1);  // fault: different_collectives
  }
  y[threadIdx.x] = v;
}
const Case kDifferentCollectives{"different_collectives", [](const Args& a) {
                                   launch(different_collectives_kernel, 1, 32, 0, nullptr, a.as<float>(0));
                                 }};

__global__ void deadlock_kernel() {
  if (threadIdx.x % 2 == 0) {
    __syncwarp();  // fault: deadlock
  } else {
    __syncthreads();  // fault: deadlock
  }
}
const Case kDeadlock{"deadlock", [](const Args&) { launch(deadlock_kernel, 1, 32, 0, nullptr); }};

__global__ void half_a_warp_kernel(unsigned* y) {
  __shared__ __align__(16) std::uint16_t s[128];
  store_vec(s + threadIdx.x * 8, make_uint4(0, 0, 0, 0));
  __syncwarp(0xffffu);
  std::uint32_t r[2];
  ldmatrix_x2(r, s + threadIdx.x * 8);  // fault: half_a_warp
  y[threadIdx.x] = r[0];
}
const Case kHalfAWarp{"half_a_warp",
                      [](const Args& a) { launch(half_a_warp_kernel, 1, 16, 0, nullptr, a.as<unsigned>(0)); }};

__global__ void nothing_kernel() {}
const Case kBlockTooLarge{"block_too_large", [](const Args&) { launch(nothing_kernel, 1, 1025, 0, nullptr); }};
const Case kTooMuchShared{"too_much_shared", [](const Args&) { launch(nothing_kernel, 1, 32, 300u << 10, nullptr); }};
const Case kGridTooLarge{"grid_too_large", [](const Args&) { launch(nothing_kernel, dim3(1, 65536), 32, 0, nullptr); }};
const Case kEmptyGrid{"empty_grid", [](const Args&) { launch(nothing_kernel, dim3(4, 0), 32, 0, nullptr); }};

__global__ void nested_kernel() { launch(nothing_kernel, 1, 32, 0, nullptr); }
const Case kNested{"nested", [](const Args&) { launch(nested_kernel, 1, 1, 0, nullptr); }};

}  // namespace
