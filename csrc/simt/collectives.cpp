// Barriers and warp collectives: the places where fibers wait for each other.
#include <bit>
#include <cstring>

#include "simt/engine.hpp"

namespace simt {
namespace {

bool same_place(const Here& a, const Here& b) {
  return a.line() == b.line() && (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

void release_barrier(Engine& e) {
  if (e.alive < e.threads && (e.config.checks & kBarrier) != 0) {
    int gone = 0;
    while (e.fibers[static_cast<std::size_t>(gone)].state != Fiber::State::kDone) ++gone;
    fail("barrier", "__syncthreads at %s:%u after %d of %d threads have exited, thread %d among them",
         base_name(e.barrier_here.file_name()), e.barrier_here.line(), e.threads - e.alive, e.threads, gone);
  }
  for (int i = 0; i < e.threads; ++i) {
    if (e.fibers[static_cast<std::size_t>(i)].state == Fiber::State::kAtBarrier)
      e.make_ready(i / kWarp, 1u << (i % kWarp));
  }
  e.at_barrier = 0;
  ++e.epoch;
}

}  // namespace

void barrier(Here here) {
  Engine& e = engine;
  Fiber& f = *e.current;
  f.state = Fiber::State::kAtBarrier;
  if (e.at_barrier == 0) {
    e.first_at_barrier = &f;
    e.barrier_here = here;
  } else if (!same_place(e.barrier_here, here) && (e.config.checks & kBarrier) != 0) {
    fail("barrier", "threads of one block wait at different __syncthreads: %s:%u (thread %d) and %s:%u (thread %d)",
         base_name(e.barrier_here.file_name()), e.barrier_here.line(), e.first_at_barrier->id,
         base_name(here.file_name()), here.line(), f.id);
  }
  if (++e.at_barrier == e.alive) release_barrier(e);
  yield_fiber(false);
}

void complete_collective(Engine& e, int w, int index) {
  Warp& warp = e.warps[w];
  const Collective c = warp.pending[index];
  if (c.whole_warp && warp.alive != ~0u) {
    fail("barrier", "%s:%u: an .aligned instruction needs all 32 lanes, the warp has %08x",
         base_name(c.here.file_name()), c.here.line(), warp.alive);
  }
  warp.pending[index] = warp.pending[--warp.pending_count];
  ++stats.collectives;
  c.exec(c.args, c.mask & warp.alive);
  e.make_ready(w, c.arrived);
}

void collective(Exec exec, std::uint32_t mask, void* arg, bool whole_warp, Here here) {
  Engine& e = engine;
  Fiber& f = *e.current;
  const int w = f.id / kWarp, lane = f.id % kWarp;
  Warp& warp = e.warps[w];
  if ((mask >> lane & 1u) == 0)
    fail("barrier", "%s:%u: mask %08x leaves out the calling lane %d", base_name(here.file_name()), here.line(), mask,
         lane);
  int k = 0;
  while (k < warp.pending_count && warp.pending[k].mask != mask) ++k;
  if (k == kMaxPending)
    fail("barrier", "%s:%u: more than %d collectives wait in a warp", base_name(here.file_name()), here.line(),
         kMaxPending);
  Collective& c = warp.pending[k];
  if (k == warp.pending_count) {
    ++warp.pending_count;
    c.exec = exec;
    c.mask = mask;
    c.arrived = 0;
    c.whole_warp = whole_warp;
    c.here = here;
  } else if (c.exec != exec || (!same_place(c.here, here) && (e.config.checks & kBarrier) != 0)) {
    fail("barrier", "lanes of warp %d wait at different collectives: %s:%u and %s:%u", w, base_name(c.here.file_name()),
         c.here.line(), base_name(here.file_name()), here.line());
  }
  c.args[lane] = arg;
  c.arrived |= 1u << lane;
  f.state = Fiber::State::kAtCollective;
  if (c.arrived == (mask & warp.alive)) complete_collective(e, w, k);
  yield_fiber(false);
}

void meet_without(Engine& e, const Fiber& gone) {
  if (e.alive > 0 && e.at_barrier == e.alive) release_barrier(e);
  const int w = gone.id / kWarp;
  const Warp& warp = e.warps[w];
  for (int k = 0; k < warp.pending_count; ++k) {
    if (warp.pending[k].arrived == (warp.pending[k].mask & warp.alive)) return complete_collective(e, w, k);
  }
}

void exec_syncwarp(void* const*, std::uint32_t lanes) {
  ++engine.warps[engine.current->id / kWarp].epoch;
  (void)lanes;  // one for some lanes counts as one for all
}

void exec_ballot(void* const* lane_args, std::uint32_t lanes) {
  std::uint32_t ballot = 0;
  for (int l = 0; l < kWarp; ++l) {
    if ((lanes >> l & 1u) != 0 && *static_cast<std::uint32_t*>(lane_args[l]) != 0) ballot |= 1u << l;
  }
  for (int l = 0; l < kWarp; ++l) {
    if ((lanes >> l & 1u) != 0) *static_cast<std::uint32_t*>(lane_args[l]) = ballot;
  }
}

void exec_shuffle(void* const* lane_args, std::uint32_t lanes) {
  for (int l = 0; l < kWarp; ++l) {
    if ((lanes >> l & 1u) == 0) continue;
    auto& s = *static_cast<Shuffle*>(lane_args[l]);
    const int begin = l & ~(s.width - 1), end = begin + s.width;
    int from = l;
    switch (s.mode) {
      case Shuffle::kIndex: from = begin + (s.operand & (s.width - 1)); break;
      case Shuffle::kUp: from = l - s.operand < begin ? l : l - s.operand; break;
      case Shuffle::kDown: from = l + s.operand >= end ? l : l + s.operand; break;
      case Shuffle::kXor: from = (l ^ s.operand) >= end ? l : l ^ s.operand; break;
    }
    if ((lanes >> from & 1u) == 0) {
      fail("barrier", "lane %d shuffles from lane %d, which takes no part (lanes %08x do)", l, from, lanes);
    }
    s.result = static_cast<Shuffle*>(lane_args[from])->value;
  }
}

}  // namespace simt
