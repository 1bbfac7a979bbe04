// What kernels and their hosts call in the emulator: launches, device memory, and the operations behind the
// intrinsics of simt.hpp and the PTX wrappers of cuda/. README.md tells what the checks see.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "simt/vectors.hpp"

using cudaStream_t = struct CUstream_st*;

namespace simt {

using Here = std::source_location;

// A check that failed. what() names it, and the kernel's file and line, the block and the thread.
struct error : std::runtime_error {
  error(const std::string& check_, const std::string& what) : std::runtime_error(check_ + ": " + what), check(check_) {}
  std::string check;  // "race", "uninit", "bounds", "align", "async", "barrier", "local", "launch" or "exception"
};

enum Check : unsigned {
  kRace = 1,
  kUninit = 2,
  kBounds = 4,
  kAlign = 8,
  kAsync = 16,
  kBarrier = 32,
  kLocal = 64,
  kAllChecks = 127
};

// Set from the environment before the first use; may be changed between launches.
struct Config {
  std::uint64_t seed = 0;        // STAPES_SIMT_SEED. 0: lanes and blocks in order; else the order is drawn from it
  unsigned checks = kAllChecks;  // STAPES_SIMT_CHECKS: "all", "none" or names joined by commas
  int arch = 90;                 // STAPES_SIMT_ARCH: the compute capability that kernels are told
  std::size_t shared_limit = 227u << 10;  // bytes of dynamic shared memory a block may ask for, by arch
};
Config& config();

struct Stats {
  std::uint64_t launches, blocks, switches, collectives, mma, ldmatrix, ldmatrix_conflicts, accesses;
};
extern Stats stats;

// ---- memory of the device
// Memory with exact bounds, full of 0xff (a NaN in every floating type), its contents counted as never written.
void* device_malloc(std::size_t bytes);
void device_free(void* p);
// Sets all bytes to zero, which counts as written.
void device_zero(void* p, std::size_t bytes);
// Lends memory of the host, of any size and alignment. Loans may nest, and one address may be lent more than once;
// untrack() ends the last loan that began at `p`. Two loans of the very same bytes share what the checks know.
void track(const void* p, std::size_t bytes, bool writable);
void untrack(const void* p);

// ---- launches
using Body = void (*)(void* parameters);
// Runs all threads of all blocks, one launch at a time in the process. Throws simt::error.
void run(Body body, void* parameters, std::size_t parameter_bytes, dim3 grid, dim3 block, std::size_t dynamic_shared);

// Parameters are copied once for the launch and once for each thread, as on a GPU.
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t dynamic_shared, A&&... args) {
  struct Call {
    void (*kernel)(P...);
    std::tuple<std::decay_t<P>...> parameters;
  } call{kernel, {std::forward<A>(args)...}};
  static_assert(sizeof(call.parameters) <= 4096, "parameters of a kernel take 4 KB at most");
  run([](void* p) { std::apply(static_cast<Call*>(p)->kernel, static_cast<Call*>(p)->parameters); }, &call, sizeof call,
      grid, block, dynamic_shared);
}

// ---- inside a kernel
// "const": to one thread these never change. They are functions and no variables, so that reading them is no access
// that the checks would have to know.
[[gnu::const]] uint3 thread_index();
[[gnu::const]] uint3 block_index();
[[gnu::const]] dim3 block_size();
[[gnu::const]] dim3 grid_size();
[[gnu::const]] void* dynamic_shared();

void barrier(Here here);

// The lanes of `mask` meet; the last one runs `exec` for all of them, then all go on. lane_args[i] is lane i's `arg`.
using Exec = void (*)(void* const* lane_args, std::uint32_t lanes);
void collective(Exec exec, std::uint32_t mask, void* arg, bool whole_warp, Here here);
void exec_syncwarp(void* const* lane_args, std::uint32_t lanes);
void exec_ballot(void* const* lane_args, std::uint32_t lanes);  // std::uint32_t: a predicate in, the ballot out

struct Shuffle {
  enum Mode { kIndex, kUp, kDown, kXor } mode;
  int operand, width;
  std::uint64_t value, result;
};
void exec_shuffle(void* const* lane_args, std::uint32_t lanes);

template <class T>
T shuffle(Shuffle::Mode mode, std::uint32_t mask, T v, int operand, int width, Here here) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  Shuffle s{mode, operand, width, 0, 0};
  std::memcpy(&s.value, &v, sizeof v);
  collective(exec_shuffle, mask, &s, false, here);
  std::memcpy(&v, &s.result, sizeof v);
  return v;
}

// ---- PTX, by its documented fragment layouts
struct Ldmatrix {
  const void* row;        // this lane's row of 16 bytes
  std::uint32_t* result;  // one register for each matrix
  bool transposed;
};
void exec_ldmatrix_x2(void* const* lane_args, std::uint32_t lanes);
void exec_ldmatrix_x4(void* const* lane_args, std::uint32_t lanes);

struct Mma {
  float* d;  // accumulated in place
  const std::uint32_t *a, *b;
};
void exec_mma_m16n8k16_bf16(void* const* lane_args, std::uint32_t lanes);
void exec_mma_m16n8k16_f16(void* const* lane_args, std::uint32_t lanes);
void exec_mma_m16n8k8_f16(void* const* lane_args, std::uint32_t lanes);
void exec_mma_m16n8k8_tf32(void* const* lane_args, std::uint32_t lanes);

// Zeros arrive when !predicate, and the source is not read then.
void cp_async(void* destination, const void* source, int bytes, bool predicate);
void cp_async_commit();
void cp_async_wait(int keep);

// ---- what the compiler's instrumentation cannot tell
void check_vector(const void* p, std::size_t bytes, bool write);  // alignment of one access, before it is taken apart
void fence();
template <class T>
T atomic_add(T* p, T v);  // int, unsigned, unsigned long long; returns what was there before

}  // namespace simt
