// Kernels under test by name: each file of this folder registers cases, tests/test_simt.py runs them through ctypes.
#pragma once

#include <cstdint>
#include <string_view>

#include "cuda/mma.cuh"

// The arrays that the test lends, in its order, and one number.
struct Args {
  void* const* arrays;
  std::int64_t number;
  template <class T>
  T* as(int i) const {
    return static_cast<T*>(arrays[i]);
  }
};

struct Case {
  Case(std::string_view name, void (*run)(const Args&));
  std::string_view name;
  void (*run)(const Args&);
  Case* next;
};

using namespace stapes::cuda;
