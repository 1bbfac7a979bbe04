#include "simt/context.hpp"

#include <sys/mman.h>

#include <new>

namespace simt {

#ifdef SIMT_USES_UCONTEXT

void switch_context(Context& from, Context& to) { swapcontext(&from.state, &to.state); }

void prepare_context(Context& context, char* stack, void (*entry)()) {
  getcontext(&context.state);
  context.state.uc_stack.ss_sp = stack;
  context.state.uc_stack.ss_size = kStackBytes;
  context.state.uc_link = nullptr;
  makecontext(&context.state, entry, 0);
}

#else

// Saves what the System V ABI lets a function call keep. Ten times quicker than swapcontext, which asks the kernel
// for the signal mask.
extern "C" void simt_switch_stack(void** from, void* to);
asm(R"(
.pushsection .text
.type simt_switch_stack,@function
.hidden simt_switch_stack
simt_switch_stack:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp,(%rdi)
  mov %rsi,%rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size simt_switch_stack,.-simt_switch_stack
.popsection
)");

void switch_context(Context& from, Context& to) { simt_switch_stack(&from.stack_pointer, to.stack_pointer); }

void prepare_context(Context& context, char* stack, void (*entry)()) {
  void** top = reinterpret_cast<void**>(stack + kStackBytes - 64);
  *--top = nullptr;  // the return address of entry(): ends every unwinding
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;  // the six registers
  context.stack_pointer = static_cast<void*>(top);
}

#endif

void Stacks::map() {
  constexpr std::size_t kBytes = kStackBytes * kMaxThreads, kPage = 4096;
  void* all =
      mmap(nullptr, kBytes + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) throw std::bad_alloc();
  const auto address = reinterpret_cast<std::uintptr_t>(all);
  base_ = static_cast<char*>(all) + (-address & (kStackBytes - 1));
  for (int i = 0; i < kMaxThreads; ++i) {
    if (mprotect(of(i), kPage, PROT_NONE) != 0) throw std::bad_alloc();
  }
}

}  // namespace simt
