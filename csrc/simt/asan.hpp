// What AddressSanitizer wants to be told about stacks and memory; nothing in other builds.
#pragma once

#include <pthread.h>

#include <cstddef>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {

#ifdef __SANITIZE_ADDRESS__
constexpr bool kAsan = true;
inline void asan_poison(void* p, std::size_t bytes) { __asan_poison_memory_region(p, bytes); }
inline void asan_unpoison(void* p, std::size_t bytes) { __asan_unpoison_memory_region(p, bytes); }
// Around a switch: before it with the stack that follows, after it in the stack that goes on.
inline void asan_leave(void** fake_stack, const void* stack, std::size_t bytes) {
  __sanitizer_start_switch_fiber(fake_stack, stack, bytes);
}
inline void asan_arrive(void* fake_stack) { __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr); }
inline void asan_own_stack(const void*& stack, std::size_t& bytes) {
  pthread_attr_t attributes;
  void* begin = nullptr;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &begin, &bytes);
  pthread_attr_destroy(&attributes);
  stack = begin;
}
#else
constexpr bool kAsan = false;
inline void asan_poison(void*, std::size_t) {}
inline void asan_unpoison(void*, std::size_t) {}
inline void asan_leave(void**, const void*, std::size_t) {}
inline void asan_arrive(void*) {}
inline void asan_own_stack(const void*&, std::size_t&) {}
#endif

}  // namespace simt
