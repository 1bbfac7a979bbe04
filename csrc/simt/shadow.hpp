// What is known of each piece of shared and global memory: who wrote it last and who read it since. From this come
// the checks "race", "uninit" and "async". Time is counted in epochs: every __syncthreads and every block begins one.
// Two accesses by threads of a block are ordered if a __syncthreads, or in one warp a __syncwarp, lies between.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace simt {

enum class Space : std::uint8_t { kShared, kGlobal, kOwn };
enum class Kind : std::uint8_t {
  kRead,
  kWarpRead,  // ldmatrix: the whole warp reads
  kWrite,
  kAtomic,
  kAsyncIssue,  // cp.async overtakes what came before it, and its bytes are nobody's until the wait
  kAsyncDone
};
inline bool is_read(Kind kind) { return kind == Kind::kRead || kind == Kind::kWarpRead; }

// One access by a kernel.
struct Access {
  Kind kind;
  int thread;
  std::uintptr_t address;
  std::size_t bytes;
  std::uintptr_t pc;
};

// Who touched a granule last. `pc` counts from the module's begin.
struct Touch {
  enum Flag : std::uint16_t {
    kAtomic = 1,
    kInFlight = 2,      // written by a cp.async that was not waited for
    kOtherLanes = 4,    // read since the last __syncwarp by other lanes of the warp too
    kOtherWarps = 8,    // read since the last __syncthreads by other warps too
    kEarlierBlock = 16  // read by an earlier block of this launch too
  };
  std::uint32_t epoch, warp_epoch, pc;
  std::uint16_t thread, flags;
  bool has(Flag flag) const { return (flags & flag) != 0; }
};
struct Cell {
  Touch write, read;  // all zero: never touched
};

// The cells of one range of memory. One cell stands for 4 bytes, until the first access to a part of them: then the
// range is divided, once and for all, so that neighbouring bytes of different threads are no race.
class Shadow {
 public:
  explicit constexpr Shadow(std::size_t bytes) : bytes_(bytes) {}

  // Cells of [offset, offset + bytes), ready to be looked at.
  struct Range {
    Cell *first, *last;
  };
  Range cells(std::size_t offset, std::size_t bytes) {
    const std::size_t parts = (offset | bytes) & 3u;
    const int shift = parts == 0 ? 2 : (parts & 1u) != 0 ? 0 : 1;
    if (shift < shift_ || !cells_) divide(shift);
    return {&cells_[offset >> shift_], &cells_[(offset + bytes - 1) >> shift_]};
  }
  void forget();  // as if never touched

 private:
  struct Free {
    void operator()(Cell* p) const { std::free(p); }
  };
  void divide(int shift);
  std::size_t count(int shift) const { return (bytes_ >> shift) + 1; }

  std::size_t bytes_;
  int shift_ = 2;
  std::unique_ptr<Cell[], Free> cells_;  // from calloc: pages that no kernel touches cost nothing
};

// Checks one access, of which [offset, offset + bytes) lies in `shadow`, and notes it.
void check_cells(Shadow& shadow, Space space, std::size_t offset, const Access& access, bool check_uninit);

}  // namespace simt
