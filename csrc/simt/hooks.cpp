// What kernels compiled with -fsanitize=thread,bounds,alignment call, and the public functions about memory. Nothing is
// linked with these sanitizers: the functions below stand in for their libraries.
#include <cstdlib>
#include <cstring>
#include <new>

#include "simt/asan.hpp"
#include "simt/engine.hpp"

namespace simt {
namespace {

// Untracked bytes on either side, so that a long miss meets no other array. ASan's own are there already.
constexpr std::size_t kGuardBytes = kAsan ? 0 : 16u << 10;

inline void hook(const void* p, std::size_t bytes, Kind kind, bool natural, const void* pc) {
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  const auto frame = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  if (address / kStackBytes == frame / kStackBytes) return;  // the fiber's own stack, which is aligned to its size
  Engine& e = engine;
  if (!e.stacks.holds(frame)) return;  // code of the host
  ++stats.accesses;
  e.memory.access({kind, e.current->id, address, bytes, reinterpret_cast<std::uintptr_t>(pc)}, natural);
}

}  // namespace

void* device_malloc(std::size_t bytes) {
  void* p = std::aligned_alloc(256, (bytes + 2 * kGuardBytes + 256) / 256 * 256);
  if (p == nullptr) throw std::bad_alloc();
  char* begin = static_cast<char*>(p) + kGuardBytes;
  std::memset(begin, 0xff, bytes);
  const std::lock_guard lock(engine.mutex);
  engine.memory.lend(begin, bytes, true, true);
  return begin;
}

void device_free(void* p) {
  if (p == nullptr) return;
  untrack(p);
  std::free(static_cast<char*>(p) - kGuardBytes);
}

void device_zero(void* p, std::size_t bytes) {
  std::memset(p, 0, bytes);
  const std::lock_guard lock(engine.mutex);
  engine.memory.written_by_host(p, bytes);
}

void track(const void* p, std::size_t bytes, bool writable) {
  const std::lock_guard lock(engine.mutex);
  engine.memory.lend(p, bytes, writable, false);
}

void untrack(const void* p) {
  const std::lock_guard lock(engine.mutex);
  engine.memory.end_loan(p);
}

void check_vector(const void* p, std::size_t bytes, bool write) {
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  if ((engine.config.checks & kAlign) == 0 || address % bytes == 0) return;
  const Access access{write ? Kind::kWrite : Kind::kRead, engine.current->id, address, bytes, 0};
  fail_at(access, {}, "align", "%zu-byte %s at an address that ends in %03zx", bytes, write ? "write" : "read",
          address & 0xfffu);
}

void fence() { engine.current->fenced = true; }

// Blocks that each write, fence and then take an atomic are ordered by it: the "last block" pattern.
template <class T>
T atomic_add(T* p, T v) {
  Engine& e = engine;
  const Fiber& f = *e.current;
  const Access access{Kind::kAtomic, f.id, reinterpret_cast<std::uintptr_t>(p), sizeof *p,
                      reinterpret_cast<std::uintptr_t>(__builtin_return_address(0))};
  if (e.memory.access(access, true) == Space::kGlobal && f.fenced) {
    e.releases.push_back({e.block_epoch, e.epoch, e.warps[f.id / kWarp].epoch, f.id});
    e.acquired = true;
  }
  const T before = *p;
  *p = before + v;
  return before;
}
template int atomic_add(int*, int);
template unsigned atomic_add(unsigned*, unsigned);
template unsigned long long atomic_add(unsigned long long*, unsigned long long);

}  // namespace simt

// ---- what -fsanitize=thread calls
#define SIMT_HOOK(name, bytes, kind, natural) \
  extern "C" void name(void* p) { simt::hook(p, bytes, simt::Kind::kind, natural, __builtin_return_address(0)); }
SIMT_HOOK(__tsan_read1, 1, kRead, true)
SIMT_HOOK(__tsan_read2, 2, kRead, true)
SIMT_HOOK(__tsan_read4, 4, kRead, true)
SIMT_HOOK(__tsan_read8, 8, kRead, true)
SIMT_HOOK(__tsan_read16, 16, kRead, true)
SIMT_HOOK(__tsan_write1, 1, kWrite, true)
SIMT_HOOK(__tsan_write2, 2, kWrite, true)
SIMT_HOOK(__tsan_write4, 4, kWrite, true)
SIMT_HOOK(__tsan_write8, 8, kWrite, true)
SIMT_HOOK(__tsan_write16, 16, kWrite, true)
SIMT_HOOK(__tsan_unaligned_read2, 2, kRead, false)
SIMT_HOOK(__tsan_unaligned_read4, 4, kRead, false)
SIMT_HOOK(__tsan_unaligned_read8, 8, kRead, false)
SIMT_HOOK(__tsan_unaligned_read16, 16, kRead, false)
SIMT_HOOK(__tsan_unaligned_write2, 2, kWrite, false)
SIMT_HOOK(__tsan_unaligned_write4, 4, kWrite, false)
SIMT_HOOK(__tsan_unaligned_write8, 8, kWrite, false)
SIMT_HOOK(__tsan_unaligned_write16, 16, kWrite, false)
#undef SIMT_HOOK

extern "C" {
void __tsan_init() { simt::engine.instrumented = true; }
void __tsan_read_range(void* p, std::size_t bytes) {
  if (bytes > 0) simt::hook(p, bytes, simt::Kind::kRead, false, __builtin_return_address(0));
}
void __tsan_write_range(void* p, std::size_t bytes) {
  if (bytes > 0) simt::hook(p, bytes, simt::Kind::kWrite, false, __builtin_return_address(0));
}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}

// ---- what -fsanitize=bounds,alignment calls, with GCC's descriptions of the place
#ifndef __SANITIZE_ADDRESS__
namespace {
struct Place {
  const char* file;
  std::uint32_t line, column;
};
struct Mismatch {
  Place place;
  void* type;
  unsigned char log_alignment, kind;
};
}  // namespace

extern "C" {
void __ubsan_handle_out_of_bounds(Place* place, std::uintptr_t index) {
  if (!simt::engine.on_fiber() || (simt::engine.config.checks & simt::kBounds) == 0) return;
  simt::fail("bounds", "index %zd is outside of the array, %s:%u", static_cast<std::ptrdiff_t>(index),
             simt::base_name(place->file), place->line);
}
void __ubsan_handle_type_mismatch_v1(Mismatch* mismatch, std::uintptr_t address) {
  if (!simt::engine.on_fiber() || (simt::engine.config.checks & simt::kAlign) == 0) return;
  simt::fail("align", "a type aligned to %u bytes at an address that ends in %03zx, %s:%u",
             1u << mismatch->log_alignment, address & 0xfffu, simt::base_name(mismatch->place.file),
             mismatch->place.line);
}
}
#endif
