// Kernels with one fault of memory each. "fault:" marks the line that the report must name, "earlier:" the other one
// of a conflict.
#include "harness.hpp"

namespace {

// ---- races

__global__ void race_in_block_kernel(float* y) {
  __shared__ float s[64];
  const unsigned t = threadIdx.x;
  s[t] = 0.0f;
  __syncthreads();
  s[t] += 1.0f;             // fault: race_in_block
  y[t] = s[(t + 32) % 64];  // earlier: race_in_block
}
const Case kRaceInBlock{"race_in_block",
                        [](const Args& a) { launch(race_in_block_kernel, 1, 64, 0, nullptr, a.as<float>(0)); }};

__global__ void race_in_warp_kernel(float* y) {
  __shared__ float s[32];
  const unsigned t = threadIdx.x;
  s[t] = 0.0f;
  __syncwarp();
  y[t] = s[31 - t];  // earlier: race_in_warp
  s[t] = 1.0f;       // fault: race_in_warp
}
const Case kRaceInWarp{"race_in_warp",
                       [](const Args& a) { launch(race_in_warp_kernel, 1, 32, 0, nullptr, a.as<float>(0)); }};

__global__ void race_between_blocks_kernel(float* y) {
  if (threadIdx.x == 0) y[0] = 1.0f;  // fault: race_between_blocks
}
const Case kRaceBetweenBlocks{"race_between_blocks", [](const Args& a) {
                                launch(race_between_blocks_kernel, 3, 32, 0, nullptr, a.as<float>(0));
                              }};

// Each block writes its part and counts itself; the last one reads all parts. Nothing makes the parts visible.
__global__ void no_fence_kernel(float* parts, unsigned* count) {
  if (threadIdx.x != 0) return;
  parts[blockIdx.x] = 1.0f;  // earlier: no_fence
  if (atomicAdd(count, 1u) + 1 < gridDim.x) return;
  float sum = 0.0f;
  for (unsigned i = 0; i < gridDim.x; ++i) sum += parts[i];  // fault: no_fence
  parts[0] = sum;
}
const Case kNoFence{
    "no_fence", [](const Args& a) { launch(no_fence_kernel, 3, 32, 0, nullptr, a.as<float>(0), a.as<unsigned>(1)); }};

// The fence of one thread says nothing of what others wrote, unless a barrier lies between.
__global__ void no_barrier_before_fence_kernel(float* parts, unsigned* count) {
  const unsigned t = threadIdx.x;
  parts[blockIdx.x * 64 + t] = 1.0f;  // earlier: no_barrier_before_fence
  __shared__ bool last;
  if (t == 0) {
    __threadfence();
    last = atomicAdd(count, 1u) + 1 == gridDim.x;
  }
  __syncthreads();
  float sum = 0.0f;
  if (last && t == 0) {
    for (unsigned i = 0; i < gridDim.x * 64; ++i) sum += parts[i];  // fault: no_barrier_before_fence
    parts[0] = sum;
  }
}
const Case kNoBarrierBeforeFence{"no_barrier_before_fence", [](const Args& a) {
                                   launch(no_barrier_before_fence_kernel, 3, 64, 0, nullptr, a.as<float>(0),
                                          a.as<unsigned>(1));
                                 }};

__global__ void plain_counter_kernel(unsigned* count) {
  if (threadIdx.x == 0) *count += 1;  // fault: plain_counter
}
const Case kPlainCounter{"plain_counter",
                         [](const Args& a) { launch(plain_counter_kernel, 2, 32, 0, nullptr, a.as<unsigned>(0)); }};

__global__ void ldmatrix_race_kernel(unsigned* y) {
  __shared__ __align__(16) std::uint16_t s[32 * 8];
  const unsigned t = threadIdx.x;
  store_vec(s + t * 8, make_uint4(t, t, t, t));
  std::uint32_t r[4];
  ldmatrix_x4(r, s + t * 8);  // fault: ldmatrix_race
  y[t] = r[0];
}
const Case kLdmatrixRace{"ldmatrix_race",
                         [](const Args& a) { launch(ldmatrix_race_kernel, 1, 32, 0, nullptr, a.as<unsigned>(0)); }};

// ---- uninitialised

__global__ void uninit_static_kernel(float* y) {
  __shared__ float s[33];
  s[threadIdx.x] = 1.0f;
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x + 1];  // fault: uninit_static
}
const Case kUninitStatic{"uninit_static",
                         [](const Args& a) { launch(uninit_static_kernel, 1, 32, 0, nullptr, a.as<float>(0)); }};

// What the block before left is not initialised either.
__global__ void uninit_dynamic_kernel(float* y) {
  STAPES_DYN_SHARED(float, s);
  if (blockIdx.x == 0) s[threadIdx.x] = 1.0f;
  __syncthreads();
  y[blockIdx.x * 32 + threadIdx.x] = s[threadIdx.x];  // fault: uninit_dynamic
}
const Case kUninitDynamic{"uninit_dynamic",
                          [](const Args& a) { launch(uninit_dynamic_kernel, 2, 32, 128, nullptr, a.as<float>(0)); }};

__global__ void copy_kernel(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x];  // fault: uninit_workspace write_to_input out_of_bounds_global
}
const Case kUninitWorkspace{"uninit_workspace", [](const Args& a) {
                              const Workspace scratch(128, nullptr);
                              launch(copy_kernel, 1, 32, 0, nullptr, scratch.as<float>(), a.as<float>(0));
                            }};

// ---- bounds

const Case kWriteToInput{"write_to_input", [](const Args& a) {
                           launch(copy_kernel, 1, 32, 0, nullptr, a.as<const float>(0), a.as<float>(1));
                         }};
const Case kOutOfBounds{"out_of_bounds_global", [](const Args& a) {
                          launch(copy_kernel, 1, 33, 0, nullptr, a.as<const float>(0), a.as<float>(1));
                        }};

__global__ void half_outside_kernel(const float* x, float* y) {
  if (threadIdx.x == 0) store_vec(y, load_vec<float4>(x + 4));  // fault: half_outside
}
const Case kHalfOutside{"half_outside", [](const Args& a) {
                          launch(half_outside_kernel, 1, 32, 0, nullptr, a.as<const float>(0), a.as<float>(1));
                        }};

__global__ void out_of_bounds_static_kernel(float* y) {
  __shared__ float s[32];
  s[threadIdx.x + 1] = 1.0f;  // fault: out_of_bounds_static
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x];
}
const Case kOutOfBoundsStatic{"out_of_bounds_static", [](const Args& a) {
                                launch(out_of_bounds_static_kernel, 1, 32, 0, nullptr, a.as<float>(0));
                              }};

// Through a pointer the compiler does not know the extent.
__global__ void past_shared_array_kernel(float* y) {
  __shared__ float short_by_one[31];
  __shared__ float other[32];
  const auto fill = [](float* p) { p[threadIdx.x] = 1.0f; };  // fault: past_shared_array
  fill(other);
  fill(short_by_one);
  __syncthreads();
  y[threadIdx.x] = other[threadIdx.x] + short_by_one[0];
}
const Case kPastSharedArray{"past_shared_array",
                            [](const Args& a) { launch(past_shared_array_kernel, 1, 32, 0, nullptr, a.as<float>(0)); }};

__global__ void out_of_bounds_dynamic_kernel(float* y) {
  STAPES_DYN_SHARED(float, s);
  s[threadIdx.x] = 1.0f;  // fault: out_of_bounds_dynamic
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x];
}
const Case kOutOfBoundsDynamic{"out_of_bounds_dynamic", [](const Args& a) {
                                 launch(out_of_bounds_dynamic_kernel, 1, 32, 124, nullptr, a.as<float>(0));
                               }};

// ---- alignment, local memory

__global__ void misaligned_kernel(const float* x, float* y) {
  if (threadIdx.x == 0) store_vec(y, load_vec<float4>(x + 1));  // fault: misaligned
}
const Case kMisaligned{"misaligned", [](const Args& a) {
                         launch(misaligned_kernel, 1, 32, 0, nullptr, a.as<const float>(0), a.as<float>(1));
                       }};

__global__ void other_stack_kernel(float* y) {
  __shared__ float* theirs;
  volatile float mine = 1.0f;
  if (threadIdx.x == 0) theirs = const_cast<float*>(&mine);
  __syncthreads();
  y[threadIdx.x] = *theirs + mine;  // fault: other_stack
}
const Case kOtherStack{"other_stack",
                       [](const Args& a) { launch(other_stack_kernel, 1, 32, 0, nullptr, a.as<float>(0)); }};

// ---- cp.async

__global__ void touched_in_flight_kernel(const float* x, float* y) {
  __shared__ __align__(16) float s[128];
  const unsigned t = threadIdx.x;
  cp_async16(s + t * 4, x + t * 4, true);  // earlier: touched_in_flight
  cp_async_commit();
  y[t] = s[t * 4];  // fault: touched_in_flight
  cp_async_wait<0>();
}
const Case kTouchedInFlight{"touched_in_flight", [](const Args& a) {
                              launch(touched_in_flight_kernel, 1, 32, 0, nullptr, a.as<const float>(0), a.as<float>(1));
                            }};

__global__ void exit_in_flight_kernel(const float* x) {
  __shared__ __align__(16) float s[128];
  cp_async16(s + threadIdx.x * 4, x + threadIdx.x * 4, true);  // fault: exit_in_flight
  cp_async_commit();
}
const Case kExitInFlight{"exit_in_flight",
                         [](const Args& a) { launch(exit_in_flight_kernel, 1, 32, 0, nullptr, a.as<const float>(0)); }};

// The wait is there, the barrier that makes other threads' copies visible is not.
__global__ void no_barrier_after_wait_kernel(const float* x, float* y) {
  __shared__ __align__(16) float s[256];
  const unsigned t = threadIdx.x;
  cp_async16(s + t * 4, x + t * 4, true);
  cp_async_commit();
  cp_async_wait<0>();
  __syncwarp();
  if (t >= 32) y[t] = s[(t - 32) * 4];  // fault: no_barrier_after_wait
}
const Case kNoBarrierAfterWait{"no_barrier_after_wait", [](const Args& a) {
                                 launch(no_barrier_after_wait_kernel, 1, 64, 0, nullptr, a.as<const float>(0),
                                        a.as<float>(1));
                               }};

}  // namespace
