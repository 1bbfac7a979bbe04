// Many tensors in one launch: a table of them travels in the kernel's arguments (at most 4 KiB), and blocks of Chunk
// elements are numbered through all tensors.
#pragma once

#include <cstdint>
#include <limits>
#include <stdexcept>

#include "cuda/runtime.cuh"

namespace stapes::cuda {

// Tensor has a size.
template <class Tensor, int Most, int Chunk>
struct TensorTable {
  Tensor tensors[Most];
  int first_block[Most + 1];  // of each tensor, and behind the last one

  // The tensor that block blockIdx.x works on; it gets the elements [begin, end) of it.
  __device__ const Tensor& of_block(std::int64_t& begin, std::int64_t& end) const {
    const int block = static_cast<int>(blockIdx.x);
    int low = 0, high = Most;  // first_block[low] <= block < first_block[high]
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (first_block[middle] <= block) {
        low = middle;
      } else {
        high = middle;
      }
    }
    const Tensor& tensor = tensors[low];
    begin = std::int64_t{block - first_block[low]} * Chunk;
    end = begin + Chunk < tensor.size ? begin + Chunk : tensor.size;
    return tensor;
  }
};

// f(table, blocks) for as many tables as it takes. Empty tensors are left out.
template <int Most, int Chunk, class Tensor, class F>
void for_tables(const Tensor* tensors, std::int64_t count, const F& f) {
  TensorTable<Tensor, Most, Chunk> table{};
  int used = 0;
  std::int64_t blocks = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    if (tensors[i].size > 0) {
      table.tensors[used] = tensors[i];
      table.first_block[used++] = static_cast<int>(blocks);
      blocks += ceil_div(tensors[i].size, std::int64_t{Chunk});
      if (blocks > std::numeric_limits<int>::max()) throw std::length_error("stapes: tensors are too large");
    }
    if (used == Most || (i + 1 == count && used > 0)) {
      for (int rest = used; rest <= Most; ++rest) table.first_block[rest] = static_cast<int>(blocks);
      f(table, static_cast<unsigned>(blocks));
      used = 0;
      blocks = 0;
    }
  }
}

}  // namespace stapes::cuda
