#include "cpu/threads.hpp"

#include <omp.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <string>

namespace stapes::cpu {
namespace {

constexpr int kMostThreads = 1024;  // OpenMP ends the process when it cannot start as many as it is asked for

std::atomic<bool> forked{false};

std::atomic<int>& threads() {
  static std::atomic<int> n{std::clamp(omp_get_max_threads(), 1, kMostThreads)};
  return n;
}

// The threads of OpenMP do not survive a fork, and a parallel loop in the child would wait for them forever.
[[maybe_unused]] const int kAtFork = pthread_atfork(nullptr, nullptr, [] { forked = true; });

}  // namespace

int num_threads() { return forked ? 1 : threads().load(); }

void set_num_threads(int n) {
  if (n < 1 || n > kMostThreads) {
    throw std::invalid_argument("set_num_threads: n must be at least 1 and at most " + std::to_string(kMostThreads) +
                                ", got " + std::to_string(n));
  }
  threads() = n;
}

}  // namespace stapes::cpu
