// Fibers: stacks in one mapping, each with a guard page below, and the switch between them.
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(__x86_64__) || defined(SIMT_UCONTEXT)
#define SIMT_USES_UCONTEXT 1
#include <ucontext.h>
#endif

namespace simt {

constexpr std::size_t kStackBytes = 128u << 10;  // a power of two; stacks are aligned to it
constexpr int kMaxThreads = 1024;                // of a block

struct Context {
#ifdef SIMT_USES_UCONTEXT
  ucontext_t state;
#else
  void* stack_pointer;
#endif
};

// Leaves `from`, to come back when somebody switches to it, and goes on in `to`.
void switch_context(Context& from, Context& to);
// Makes `context` start with entry(), which must not return.
void prepare_context(Context& context, char* stack, void (*entry)());

class Stacks {
 public:
  void map();  // once; throws std::bad_alloc
  char* of(int fiber) const { return base_ + static_cast<std::size_t>(fiber) * kStackBytes; }
  bool holds(std::uintptr_t address) const {
    return address - reinterpret_cast<std::uintptr_t>(base_) < kStackBytes * kMaxThreads;
  }
  int owner(std::uintptr_t address) const {
    return static_cast<int>((address - reinterpret_cast<std::uintptr_t>(base_)) / kStackBytes);
  }

 private:
  char* base_ = nullptr;
};

}  // namespace simt
