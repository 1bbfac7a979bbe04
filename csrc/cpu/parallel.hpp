// Parallel loops whose result cannot depend on the number of threads: the tasks are fixed by the
// caller from shapes alone, and each task's work is sequential.
#pragma once

#include <omp.h>

#include <cstdint>

#include "cpu/simd.hpp"
#include "cpu/threads.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

using Index = std::int64_t;

struct Range {
  std::int64_t begin, end;
};

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

inline std::int64_t round_up(std::int64_t x, std::int64_t multiple) { return ceil_div(x, multiple) * multiple; }
constexpr std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
constexpr std::int64_t clamp(std::int64_t x, std::int64_t low, std::int64_t high) {
  return x > high ? high : x < low ? low : x;
}

// The i-th of `parts` nearly equal pieces of [0, n). No product, which could overflow: the first n % parts pieces are
// longer by one.
inline Range part(std::int64_t n, std::int64_t parts, std::int64_t i) {
  const std::int64_t length = n / parts, longer = n % parts;
  return {i * length + least(i, longer), (i + 1) * length + least(i + 1, longer)};
}

// f(task), or f(task, thread), for every task in [0, tasks), on at most `threads` threads, numbered from 0. Scratch
// memory is allocated for all of them beforehand, since f may not throw.
template <class F>
void parallel_for(std::int64_t tasks, int threads, const F& f) {
  const auto call = [&](std::int64_t task, [[maybe_unused]] int thread) {
    if constexpr (requires { f(task, thread); }) {
      f(task, thread);
    } else {
      f(task);
    }
  };
  if (tasks <= 1 || threads <= 1) {
    for (std::int64_t i = 0; i < tasks; ++i) call(i, 0);
    return;
  }
  const int used = static_cast<int>(least(threads, tasks));
#pragma omp parallel for schedule(static) num_threads(used)
  for (std::int64_t i = 0; i < tasks; ++i) call(i, omp_get_thread_num());
}

template <class F>
void parallel_for(std::int64_t tasks, const F& f) {
  parallel_for(tasks, num_threads(), f);
}

// f(begin, end) over pieces of [0, n), each of about `grain` elements: for elementwise work.
template <class F>
void parallel_ranges(std::int64_t n, std::int64_t grain, const F& f) {
  const std::int64_t parts = ceil_div(n, grain);
  parallel_for(parts, [&](std::int64_t i) {
    const Range r = part(n, parts, i);
    f(r.begin, r.end);
  });
}

inline constexpr std::int64_t kGrain = 1 << 15;  // elements: enough work to pay for waking a thread

}  // namespace stapes::cpu::STAPES_ISA_NAME
