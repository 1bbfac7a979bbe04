#include "cpu/workspace.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <vector>

namespace stapes::cpu {
namespace {

struct Block {
  void* data;
  std::size_t bytes;
};

// Blocks not in use, smallest first. An operator needs a few at a time, so the list stays short.
class Pool {
 public:
  Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() {
    for (const Block& b : free_) std::free(b.data);
  }

  Block take(std::size_t bytes) {
    const auto fit = std::find_if(free_.begin(), free_.end(), [&](const Block& b) { return b.bytes >= bytes; });
    if (fit != free_.end() && fit->bytes <= 4 * bytes + kPage) {
      const Block block = *fit;
      free_.erase(fit);
      return block;
    }
    free_.reserve(kMostBlocks + 1);  // so that give(), which runs in destructors, cannot throw
    const std::size_t rounded = (std::max<std::size_t>(bytes, 1) + kPage - 1) / kPage * kPage;
    void* data = std::aligned_alloc(kAlignment, rounded);
    if (data == nullptr) throw std::bad_alloc();
    return {data, rounded};
  }

  void give(const Block& block) noexcept {
    const auto at = std::find_if(free_.begin(), free_.end(), [&](const Block& b) { return b.bytes >= block.bytes; });
    free_.insert(at, block);
    if (free_.size() > kMostBlocks) {
      std::free(free_.front().data);
      free_.erase(free_.begin());
    }
  }

 private:
  static constexpr std::size_t kAlignment = 64, kPage = 4096, kMostBlocks = 8;
  std::vector<Block> free_;
};

thread_local Pool pool;

}  // namespace

Workspace::Workspace(std::size_t bytes) {
  const Block block = pool.take(bytes);
  data_ = block.data;
  bytes_ = block.bytes;
}

Workspace::~Workspace() { pool.give({data_, bytes_}); }

}  // namespace stapes::cpu
