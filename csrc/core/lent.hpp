// The arrays of an operator's call, lent to the emulator of CUDA (csrc/simt) while it runs, so that it can tell
// accesses outside of them, and writes to inputs. Nothing, and no code, in other builds.
#pragma once

#include "core/tensor.hpp"
#ifdef STAPES_SIMT
#include <vector>

#include "simt/device.hpp"
#endif

namespace stapes {

class Lent {
 public:
  Lent() = default;
  Lent(const Lent&) = delete;
  Lent& operator=(const Lent&) = delete;

#ifdef STAPES_SIMT
  void add(const Tensor& t, bool writable) {
    simt::track(t.data, t.nbytes(), writable);
    tracked_.push_back(t.data);
  }
  ~Lent() {
    for (const void* data : tracked_) simt::untrack(data);
  }

 private:
  std::vector<const void*> tracked_;
#else
  void add(const Tensor& /*t*/, bool /*writable*/) {}
  ~Lent() = default;
#endif
};

}  // namespace stapes
