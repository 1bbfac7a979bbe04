// The engine's state, for the files of this folder. There is one engine; run() holds its lock. It is a plain global:
// kernels must find no thread-locals of the engine in the range that holds their shared memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "simt/context.hpp"
#include "simt/device.hpp"
#include "simt/failure.hpp"
#include "simt/memory.hpp"

namespace simt {

constexpr int kWarp = 32;
constexpr int kMaxWarps = kMaxThreads / kWarp;
constexpr int kMaxPending = 4;  // collectives of a warp with different masks at a time

// A cp.async on its way.
struct Copy {
  char* destination;
  const char* source;
  int bytes;
  bool predicate, arrived;
  int group;
  std::uintptr_t pc;
};

struct Fiber {
  enum class State : std::uint8_t { kReady, kAtBarrier, kAtCollective, kDone };
  Context context;
  int id;
  uint3 index;
  State state;
  std::vector<Copy> copies;
  int groups;        // of cp.async, committed
  bool fenced;       // has executed a __threadfence
  void* fake_stack;  // AddressSanitizer's
};

// Some lanes of a warp on their way to meet.
struct Collective {
  Exec exec = nullptr;
  std::uint32_t mask = 0, arrived = 0;
  bool whole_warp = false;
  Here here{};
  void* args[kWarp] = {};
};

struct Warp {
  std::uint32_t alive = 0, ready = 0;  // lanes
  std::uint32_t epoch = 0;             // counts __syncwarp
  Collective pending[kMaxPending] = {};
  int pending_count = 0;
};

// What a block has made visible to those after it, by a __threadfence and then an atomic of one thread: all that was
// ordered before the atomic. Zero: nothing.
struct Release {
  std::uint32_t block_epoch = 0;  // when the block began
  std::uint32_t epoch = 0, warp_epoch = 0;
  int thread = 0;
};

struct Engine {
  Config config;
  std::mutex mutex;
  bool is_set_up = false;
  bool instrumented = false;  // kernels are compiled with -fsanitize=thread
  Module module;
  Memory memory;
  Stacks stacks;
  std::vector<Fiber> fibers;
  Context host = {};
  void* host_fake_stack = nullptr;
  const void* host_stack = nullptr;
  std::size_t host_stack_bytes = 0;

  // this launch
  Body body = nullptr;
  void* parameters = nullptr;
  std::size_t parameter_bytes = 0;
  dim3 grid, block;
  int threads = 0;
  std::unique_ptr<Failure> failure;

  // this block
  uint3 block_at = {};
  Fiber* current = nullptr;
  Warp warps[kMaxWarps] = {};
  std::uint32_t ready_warps = 0;
  int current_warp = 0, alive = 0, at_barrier = 0;
  Fiber* first_at_barrier = nullptr;
  Here barrier_here{};
  std::uint64_t random_state = 0;

  // time: see shadow.hpp
  std::uint32_t epoch = 0, block_epoch = 0, launch_epoch = 0;
  std::vector<Release> releases;  // of the launch so far
  bool acquired = false;          // this block sees what the blocks before it have released

  void set_up();
  std::uint32_t random();
  bool shuffles() const { return random_state != 0; }
  int choose(std::uint32_t bits);  // the place of one set bit
  void make_ready(int warp, std::uint32_t lanes);
  bool on_fiber() const { return stacks.holds(reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0))); }
};
extern Engine engine;

void run_block(Engine& e);
[[noreturn]] void leave_to_host();  // the current fiber never goes on
void yield_fiber(bool done);        // the current fiber waits; another one runs
void complete_collective(Engine& e, int warp, int index);
void meet_without(Engine& e, const Fiber& gone);  // barriers and collectives that wait for no one else now

}  // namespace simt
