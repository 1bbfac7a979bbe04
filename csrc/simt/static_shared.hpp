// The __shared__ arrays of the module's kernels: thread-locals, listed in its symbol table.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace simt {

struct StaticVariable {
  std::size_t offset, bytes;  // from the begin of the module's thread-locals
  std::string name;           // without its function
};

// In the order of their offsets; empty if the module is stripped.
std::vector<StaticVariable> read_thread_locals(const std::string& path_of_module);

}  // namespace simt
