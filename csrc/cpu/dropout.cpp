// dropout: y[i] = x[i] / (1 - p) where element i is kept, else 0; the backward is the same function of dy.
// Element i uses Philox4x32-10 with key = seed, counter = offset + i / 4 (128 bits, of which offset fills the
// low 64), word i % 4; u = (word >> 8) * 2^-24; kept when u >= p.
// Any shape, C order; y may be x. Work: fixed pieces of the array in parallel; kBlock counters at a time, so
// that the rounds run in vectors.
// Numerics: u >= p is decided in integers, exactly: (word >> 8) >= ceil(p * 2^24). Overwrites.
// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#include <cmath>

#include "core/dispatch.hpp"
#include "cpu/parallel.hpp"
#include "ops/kernels.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

constexpr int kBlock = 16;  // counters
constexpr std::int64_t kBlockElements = 4 * kBlock;

// The words of counters first, first + 1, ..., as words[word][counter].
struct Block {
  std::uint32_t words[4][kBlock];
};

[[gnu::always_inline]] inline void philox_round(Block& b, std::uint32_t key0, std::uint32_t key1) {
  for (int i = 0; i < kBlock; ++i) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * b.words[0][i];
    const std::uint64_t c = std::uint64_t{0xCD9E8D57} * b.words[2][i];
    b.words[0][i] = static_cast<std::uint32_t>(c >> 32) ^ b.words[1][i] ^ key0;
    b.words[1][i] = static_cast<std::uint32_t>(c);
    b.words[2][i] = static_cast<std::uint32_t>(a >> 32) ^ b.words[3][i] ^ key1;
    b.words[3][i] = static_cast<std::uint32_t>(a);
  }
}

Block philox(std::uint64_t seed, std::uint64_t offset, std::uint64_t first) {
  Block b;
  for (int i = 0; i < kBlock; ++i) {
    const std::uint64_t low = offset + first + static_cast<std::uint64_t>(i);
    b.words[0][i] = static_cast<std::uint32_t>(low);
    b.words[1][i] = static_cast<std::uint32_t>(low >> 32);
    b.words[2][i] = low < offset ? 1 : 0;  // the carry into the high half
    b.words[3][i] = 0;
  }
  auto key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    philox_round(b, key0, key1);
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return b;
}

template <class T>
void dropout(const DropoutArgs& a, T) {
  const T* x = static_cast<const T*>(a.x);
  T* y = static_cast<T*>(a.y);
  const auto threshold = static_cast<std::uint32_t>(std::ceil(a.p * 0x1p24));
  const T scale = static_cast<T>(1.0 / (1.0 - a.p));
  parallel_ranges(ceil_div(a.size, kBlockElements), kGrain / kBlockElements, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) {
      const Block b = philox(a.seed, a.offset, static_cast<std::uint64_t>(block * kBlock));
      const std::int64_t at = block * kBlockElements;
      const std::int64_t n = a.size - at < kBlockElements ? a.size - at : kBlockElements;
      for (std::int64_t i = 0; i < n; ++i) {
        const bool kept = (b.words[i % 4][i / 4] >> 8) >= threshold;
        y[at + i] = kept ? x[at + i] * scale : T(0);
      }
    }
  });
}

const Register kDropout{cpu::dropout, kIsa,
                        [](const DropoutArgs& a) { with_dtype(a.dtype, [&](auto t) { dropout(a, t); }); }};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
