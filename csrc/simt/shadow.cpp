#include "simt/shadow.hpp"

#include <algorithm>
#include <iterator>
#include <new>
#include <utility>

#include "simt/engine.hpp"

namespace simt {

void Shadow::divide(int shift) {
  auto* cells = static_cast<Cell*>(std::calloc(count(shift), sizeof(Cell)));
  if (cells == nullptr) throw std::bad_alloc();
  std::unique_ptr<Cell[], Free> finer(cells);
  if (cells_) {
    const int by = shift_ - shift;
    for (std::size_t i = 0; i < count(shift); ++i) finer[i] = cells_[i >> by];
  }
  cells_ = std::move(finer);
  shift_ = shift;
}

void Shadow::forget() {
  cells_.reset();
  shift_ = 2;
}

namespace {

struct Checker {
  Space space;
  const Access& access;
  bool check_uninit;
  Engine& e = engine;
  int warp = access.thread / kWarp;
  std::uint32_t warp_epoch = e.warps[warp].epoch;

  struct Where {
    char text[160];
    explicit Where(const Access& a) { engine.memory.describe(a.address, text, sizeof text); }
  };

  // An access of this block that nothing orders before ours.
  bool beside(const Touch& t) const {
    if (t.epoch != e.epoch) return false;
    if (t.thread / kWarp != warp) return true;
    return t.warp_epoch == warp_epoch && (t.thread != access.thread || access.kind == Kind::kWarpRead);
  }
  // An access of a block before this one that nothing orders before ours.
  bool by_other_block(const Touch& t) const {
    if (space != Space::kGlobal || t.epoch < e.launch_epoch || t.epoch >= e.block_epoch) return false;
    return !e.acquired || !released(t);
  }
  bool released(const Touch& t) const {
    auto r = std::upper_bound(e.releases.begin(), e.releases.end(), t.epoch,
                              [](std::uint32_t epoch, const Release& x) { return epoch < x.block_epoch; });
    if (r == e.releases.begin()) return false;
    const std::uint32_t block = std::prev(r)->block_epoch;
    while (r != e.releases.begin()) {
      --r;
      if (r->block_epoch != block) break;
      if (t.epoch < r->epoch || (t.epoch == r->epoch && t.thread == r->thread)) return true;
      if (t.epoch == r->epoch && t.thread / kWarp == r->thread / kWarp && t.warp_epoch < r->warp_epoch) return true;
    }
    return false;
  }
  bool reads_beside(const Touch& t) const {
    if (t.epoch != e.epoch) return false;
    if (t.has(Touch::kOtherWarps) || t.thread / kWarp != warp) return true;
    return t.warp_epoch == warp_epoch && (t.has(Touch::kOtherLanes) || t.thread != access.thread);
  }
  bool read_by_other_block(const Touch& t) const {
    if (by_other_block(t)) return true;
    return space == Space::kGlobal && t.has(Touch::kEarlierBlock) && t.epoch >= e.block_epoch && !e.acquired;
  }

  [[noreturn]] void race(const Touch& with, const char* verb, const char* their, const char* earlier,
                         bool other_block) const {
    fail_at(access, {earlier, with.pc}, "race", "%s: %s %d %s what %s %d %s, with no barrier between",
            Where(access).text, access.kind == Kind::kWarpRead ? "the warp of thread" : "thread", access.thread, verb,
            other_block ? "another block's thread" : "thread", int{with.thread}, their);
  }

  void check(const Cell& cell) const {
    const unsigned on = e.config.checks;
    const bool reads = is_read(access.kind);
    if (cell.write.has(Touch::kInFlight) && access.kind != Kind::kAsyncDone && (on & kAsync) != 0) {
      fail_at(access, {"cp.async", cell.write.pc}, "async",
              "%s is touched while a cp.async of thread %d into it is in flight", Where(access).text,
              int{cell.write.thread});
    }
    if (check_uninit && (reads || access.kind == Kind::kAtomic) && (on & kUninit) != 0) {
      const bool never = space == Space::kShared ? cell.write.epoch < e.block_epoch : cell.write.epoch == 0;
      if (never) {
        fail_at(access, {}, "uninit", "%s is read before any write%s", Where(access).text,
                space == Space::kShared ? " in this block" : "");
      }
    }
    if ((on & kRace) == 0) return;
    const bool both_atomic = access.kind == Kind::kAtomic && cell.write.has(Touch::kAtomic);
    if (!both_atomic) {
      const bool other_block = by_other_block(cell.write);
      if (other_block || beside(cell.write)) {
        race(cell.write, reads ? "reads" : "overwrites", "wrote", "earlier write", other_block);
      }
    }
    if (!reads) {
      const bool other_block = read_by_other_block(cell.read);
      if (other_block || reads_beside(cell.read)) race(cell.read, "overwrites", "reads", "earlier read", other_block);
    }
  }

  Touch touch(std::uint16_t flags) const {
    return {e.epoch, warp_epoch, static_cast<std::uint32_t>(access.pc - e.module.begin),
            static_cast<std::uint16_t>(access.thread), flags};
  }

  void note_read(Touch& last) const {
    const std::uint16_t all_lanes = access.kind == Kind::kWarpRead ? Touch::kOtherLanes : 0;
    if (last.epoch != e.epoch) {
      const bool earlier_block =
          space == Space::kGlobal &&
          (by_other_block(last) || (last.epoch >= e.block_epoch && last.has(Touch::kEarlierBlock)));
      last = touch(static_cast<std::uint16_t>(all_lanes | (earlier_block ? Touch::kEarlierBlock : 0)));
    } else if (last.thread / kWarp != warp) {
      last.flags |= Touch::kOtherWarps;
    } else if (last.warp_epoch != warp_epoch) {
      const int kept = last.flags & ~Touch::kOtherLanes;
      last = touch(static_cast<std::uint16_t>(kept | all_lanes));
    } else {
      last.flags =
          static_cast<std::uint16_t>(last.flags | all_lanes | (last.thread != access.thread ? Touch::kOtherLanes : 0));
    }
  }

  void note(Cell& cell) const {
    switch (access.kind) {
      case Kind::kRead:
      case Kind::kWarpRead: note_read(cell.read); break;
      case Kind::kAtomic: cell.write = touch(Touch::kAtomic); break;
      case Kind::kAsyncIssue: cell.write = touch(Touch::kInFlight); break;
      case Kind::kWrite:
      case Kind::kAsyncDone: cell.write = touch(0); break;
    }
  }
};

}  // namespace

void check_cells(Shadow& shadow, Space space, std::size_t offset, const Access& access, bool check_uninit) {
  const Checker checker{space, access, check_uninit};
  const Shadow::Range range = shadow.cells(offset, access.bytes);
  for (Cell* cell = range.first; cell <= range.last; ++cell) {
    checker.check(*cell);
    checker.note(*cell);
  }
}

}  // namespace simt
