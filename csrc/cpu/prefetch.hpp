// Fetching ahead of use, where the processor sees no pattern by itself.
#pragma once

#include "cpu/parallel.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

// Brings memory that will be read soon into the cache, a piece at each of `calls` calls.
class Prefetch {
 public:
  Prefetch() = default;  // of nothing
  template <class T>
  Prefetch(const T* begin, Index elements, Index calls)
      : at_(reinterpret_cast<const char*>(begin)),
        left_(elements * static_cast<Index>(sizeof(T))),
        piece_(round_up(ceil_div(left_, calls), kLine)) {}

  void operator()() {
    if (left_ == 0) return;
    const Index n = least(piece_, left_);
    for (Index i = 0; i < n; i += kLine) __builtin_prefetch(at_ + i, 0, 2);
    at_ += n;
    left_ -= n;
  }

 private:
  static constexpr Index kLine = 64;
  const char* at_ = nullptr;
  Index left_ = 0, piece_ = 0;
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
