// Launches, blocks, and the turns of fibers.
#include "simt/engine.hpp"

#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "simt/asan.hpp"

namespace simt {

constinit Engine engine;
Stats stats;

namespace {

unsigned checks_of(const char* names) {
  constexpr const char* kNames[] = {"race", "uninit", "bounds", "align", "async", "barrier", "local"};
  if (names == nullptr || std::strcmp(names, "all") == 0) return kAllChecks;
  if (std::strcmp(names, "none") == 0) return 0;
  unsigned checks = 0;
  std::string rest = names;
  while (!rest.empty()) {
    const std::string name = rest.substr(0, rest.find(','));
    rest.erase(0, name.size() + 1);
    unsigned bit = 1;
    for (const char* known : kNames) {
      if (name == known) break;
      bit <<= 1;
    }
    if (bit > kAllChecks) throw error("launch", "STAPES_SIMT_CHECKS names no check: " + name);
    checks |= bit;
  }
  return checks;
}

Config config_of_environment() {
  Config c;
  if (const char* seed = std::getenv("STAPES_SIMT_SEED")) c.seed = std::strtoull(seed, nullptr, 10);
  if (const char* arch = std::getenv("STAPES_SIMT_ARCH")) c.arch = static_cast<int>(std::strtol(arch, nullptr, 10));
  c.checks = checks_of(std::getenv("STAPES_SIMT_CHECKS"));
  c.shared_limit = (c.arch == 75                                    ? 64u
                    : c.arch == 80                                  ? 163u
                    : c.arch == 86 || c.arch == 89 || c.arch == 120 ? 99u
                                                                    : 227u)
                   << 10;
  return c;
}

// Where a fiber begins.
void enter() {
  Engine& e = engine;
  Fiber& f = *e.current;
  asan_arrive(f.fake_stack);
  char thrown[256] = "";
  try {
    e.body(e.parameters);
  } catch (const std::exception& x) {
    std::snprintf(thrown, sizeof thrown, "%s", x.what());
  }
  if (thrown[0] != '\0') fail("exception", "the kernel threw: %s", thrown);  // here, where the exception is gone
  if (!f.copies.empty() && (e.config.checks & kAsync) != 0) {
    const Copy& c = f.copies.front();
    fail_at({Kind::kWrite, f.id, reinterpret_cast<std::uintptr_t>(c.destination), 1, c.pc},
            {"cp.async", static_cast<std::uint32_t>(c.pc - e.module.begin)}, "async",
            "the thread exits with a cp.async in flight");
  }
  f.copies.clear();
  f.state = Fiber::State::kDone;
  --e.alive;
  e.warps[f.id / kWarp].alive &= ~(1u << (f.id % kWarp));
  meet_without(e, f);
  yield_fiber(true);
  __builtin_trap();
}

Fiber& take_ready(Engine& e) {
  if (e.warps[e.current_warp].ready == 0 || (e.shuffles() && e.random() % 8 == 0))
    e.current_warp = e.choose(e.ready_warps);
  Warp& warp = e.warps[e.current_warp];
  const int lane = e.choose(warp.ready);
  warp.ready &= ~(1u << lane);
  if (warp.ready == 0) e.ready_warps &= ~(1u << e.current_warp);
  Fiber& f = e.fibers[static_cast<std::size_t>(e.current_warp) * kWarp + static_cast<std::size_t>(lane)];
  f.state = Fiber::State::kReady;
  return f;
}

[[noreturn]] void deadlock(Engine& e) {
  char text[400] = "";  // no std::string: an abandoned fiber runs no destructor
  std::size_t used = 0;
  const auto add = [&](const char* format, auto... values) {
    used += static_cast<std::size_t>(std::snprintf(text + used, sizeof text - used, format, values...));
    used = std::min(used, sizeof text - 1);
  };
  if (e.at_barrier > 0) {
    add(" %d threads wait at __syncthreads %s:%u;", e.at_barrier, base_name(e.barrier_here.file_name()),
        e.barrier_here.line());
  }
  int shown = 0;
  for (int w = 0; w * kWarp < e.threads; ++w) {
    for (int k = 0; k < e.warps[w].pending_count && shown < 3; ++k, ++shown) {
      const Collective& c = e.warps[w].pending[k];
      add(" warp %d waits at %s:%u, mask %08x, arrived %08x;", w, base_name(c.here.file_name()), c.here.line(), c.mask,
          c.arrived);
    }
  }
  fail("barrier", "no thread can go on:%s %d threads have exited", text, e.threads - e.alive);
}

void check_limits(const Engine& e, dim3 grid, dim3 block, std::size_t dynamic_shared) {
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  if (threads < 1 || threads > kMaxThreads || block.z > 64) {
    throw error("launch", "a block of " + std::to_string(block.x) + "x" + std::to_string(block.y) + "x" +
                              std::to_string(block.z) + " threads");
  }
  if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    throw error("launch", "a grid of " + std::to_string(grid.x) + "x" + std::to_string(grid.y) + "x" +
                              std::to_string(grid.z) + " blocks");
  }
  if (dynamic_shared > e.config.shared_limit) {
    throw error("launch", std::to_string(dynamic_shared) + " bytes of dynamic shared memory; sm_" +
                              std::to_string(e.config.arch) + " has " + std::to_string(e.config.shared_limit));
  }
}

}  // namespace

void Engine::set_up() {
  if (is_set_up) return;
  config = config_of_environment();
  epoch = 1;
  module.find();
  memory.set_up(module);
  stacks.map();
  fibers.resize(kMaxThreads);
  for (int i = 0; i < kMaxThreads; ++i) fibers[static_cast<std::size_t>(i)].id = i;
  is_set_up = true;
}

std::uint32_t Engine::random() {  // xorshift
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return static_cast<std::uint32_t>(random_state >> 16);
}

int Engine::choose(std::uint32_t bits) {
  if (!shuffles()) return std::countr_zero(bits);
  const int turn = static_cast<int>(random() % kWarp);
  return (std::countr_zero(std::rotr(bits, turn)) + turn) % kWarp;
}

void Engine::make_ready(int warp, std::uint32_t lanes) {
  warps[warp].ready |= lanes;
  ready_warps |= 1u << warp;
}

void leave_to_host() {
  Engine& e = engine;
  asan_leave(nullptr, e.host_stack, e.host_stack_bytes);
  switch_context(e.current->context, e.host);
  __builtin_unreachable();
}

void yield_fiber(bool done) {
  Engine& e = engine;
  Fiber& from = *e.current;
  if (e.ready_warps == 0) {
    if (e.alive == 0) leave_to_host();
    deadlock(e);
  }
  Fiber& to = take_ready(e);
  if (&to == &from) return;
  ++stats.switches;
  e.current = &to;
  asan_leave(done ? nullptr : &from.fake_stack, e.stacks.of(to.id), kStackBytes);
  switch_context(from.context, to.context);
  asan_arrive(from.fake_stack);
}

void run_block(Engine& e) {
  e.block_epoch = ++e.epoch;
  e.releases.push_back({.block_epoch = e.block_epoch});  // of nothing, so that each block is there
  e.acquired = false;
  e.memory.begin_block();
  e.alive = e.threads;
  e.at_barrier = 0;
  e.ready_warps = 0;
  for (int w = 0; w * kWarp < e.threads; ++w) {
    const int lanes = std::min(kWarp, e.threads - w * kWarp);
    e.warps[w].alive = lanes == kWarp ? ~0u : (1u << lanes) - 1;
    e.warps[w].ready = 0;
    e.warps[w].epoch = 1;
    e.warps[w].pending_count = 0;
    e.make_ready(w, e.warps[w].alive);
  }
  for (unsigned i = 0; i < static_cast<unsigned>(e.threads); ++i) {
    Fiber& f = e.fibers[i];
    f.index = {i % e.block.x, i / e.block.x % e.block.y, i / (e.block.x * e.block.y)};
    f.copies.clear();
    f.groups = 0;
    f.fenced = false;
    f.fake_stack = nullptr;
    char* stack = e.stacks.of(f.id);
    asan_unpoison(stack, kStackBytes);  // the frames of the fiber before are still marked there
    prepare_context(f.context, stack, enter);
  }
  e.current_warp = e.choose(e.ready_warps);
  e.current = &take_ready(e);
  asan_leave(&e.host_fake_stack, e.stacks.of(e.current->id), kStackBytes);
  switch_context(e.host, e.current->context);
  asan_arrive(e.host_fake_stack);
  ++stats.blocks;
}

void run(Body body, void* parameters, std::size_t parameter_bytes, dim3 grid, dim3 block, std::size_t dynamic_shared) {
  Engine& e = engine;
  if (e.on_fiber()) throw error("launch", "a launch from inside of a kernel");
  const std::lock_guard lock(e.mutex);
  e.set_up();
  check_limits(e, grid, block, dynamic_shared);
  e.body = body;
  e.parameters = parameters;
  e.parameter_bytes = parameter_bytes;
  e.grid = grid;
  e.block = block;
  e.threads = static_cast<int>(block.x * block.y * block.z);
  e.launch_epoch = e.epoch + 1;
  e.releases.clear();
  e.failure.reset();
  e.memory.begin_launch(dynamic_shared, e.module.tls_begin());
  asan_own_stack(e.host_stack, e.host_stack_bytes);
  ++stats.launches;

  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  for (std::uint64_t i = 0; i < blocks; ++i) {
    const std::uint64_t at = e.config.seed % 2 == 1 ? blocks - 1 - i : i;  // odd seeds: blocks backwards
    e.block_at = {static_cast<unsigned>(at % grid.x), static_cast<unsigned>(at / grid.x % grid.y),
                  static_cast<unsigned>(at / grid.x / grid.y)};
    e.random_state =
        e.config.seed == 0 ? 0 : (e.config.seed * 0x9e3779b97f4a7c15u ^ (i + 1) * 0xbf58476d1ce4e5b9u) | 1u;
    run_block(e);
    if (e.failure) {
      e.memory.abandon_launch();
      throw describe(*e.failure);
    }
  }
}

Config& config() {
  const std::lock_guard lock(engine.mutex);
  engine.set_up();
  return engine.config;
}

uint3 thread_index() { return engine.current->index; }
uint3 block_index() { return engine.block_at; }
dim3 block_size() { return engine.block; }
dim3 grid_size() { return engine.grid; }
void* dynamic_shared() { return engine.memory.dynamic(); }

}  // namespace simt
