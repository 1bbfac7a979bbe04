// Scratch memory, kept from call to call: a fresh block for each would cost a page fault for every 4 KiB.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stapes::cpu {

// A 64-byte aligned block, given back to the calling thread's pool at the end of the scope. The
// contents are undefined. Throws std::bad_alloc.
class Workspace {
 public:
  explicit Workspace(std::size_t bytes);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_;
  std::size_t bytes_;
};

template <class T>
Workspace workspace_of(std::int64_t count) {
  return Workspace(static_cast<std::size_t>(count) * sizeof(T));
}

}  // namespace stapes::cpu
