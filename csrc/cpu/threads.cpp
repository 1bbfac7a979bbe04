#include "cpu/threads.hpp"

#include <omp.h>

#include <atomic>
#include <stdexcept>
#include <string>

namespace stapes::cpu {
namespace {

std::atomic<int>& threads() {
  static std::atomic<int> n{omp_get_max_threads()};
  return n;
}

}  // namespace

int num_threads() { return threads(); }

void set_num_threads(int n) {
  if (n < 1) throw std::invalid_argument("set_num_threads: n must be at least 1, got " + std::to_string(n));
  threads() = n;
}

}  // namespace stapes::cpu
