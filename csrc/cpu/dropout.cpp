// dropout: y[i] = x[i] / (1 - p) where element i is kept, else 0; the backward is the same function of dy.
// Element i uses Philox4x32-10 with key = seed, counter = offset + i / 4 (128 bits, of which offset fills the
// low 64), word i % 4; u = (word >> 8) * 2^-24; kept when u >= p.
// Any shape, C order; y may be x. Work: fixed pieces of the array in parallel; kBlock counters at a time, so
// that the rounds run in vectors.
// Numerics: u >= p is decided exactly: word >> 8 and ceil(p * 2^24) are whole numbers of 24 bits. Overwrites.
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

// One loop for each half of a product: that is how the compiler makes vectors of them.
[[gnu::always_inline]] inline void philox_round(Block& b, std::uint32_t key0, std::uint32_t key1) {
  constexpr std::uint32_t kFactor0 = 0xD2511F53, kFactor2 = 0xCD9E8D57;
  std::uint32_t high0[kBlock], low0[kBlock], high2[kBlock], low2[kBlock];
  for (int i = 0; i < kBlock; ++i)
    high0[i] = static_cast<std::uint32_t>((std::uint64_t{kFactor0} * b.words[0][i]) >> 32);
  for (int i = 0; i < kBlock; ++i)
    high2[i] = static_cast<std::uint32_t>((std::uint64_t{kFactor2} * b.words[2][i]) >> 32);
  for (int i = 0; i < kBlock; ++i) {
    low0[i] = kFactor0 * b.words[0][i];
    low2[i] = kFactor2 * b.words[2][i];
  }
  for (int i = 0; i < kBlock; ++i) {
    b.words[0][i] = high2[i] ^ b.words[1][i] ^ key0;
    b.words[1][i] = low2[i];
    b.words[2][i] = high0[i] ^ b.words[3][i] ^ key1;
    b.words[3][i] = low0[i];
  }
}

void philox(std::uint64_t seed, std::uint64_t offset, std::uint64_t first, Block& b) {
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
}

// The 24 random bits of each element, in the elements' order, as whole numbers of type T.
template <class T>
void bits_of(const Block& b, T* bits) {
  for (int i = 0; i < kBlock; ++i) {
    bits[4 * i] = static_cast<T>(static_cast<std::int32_t>(b.words[0][i] >> 8));
    bits[4 * i + 1] = static_cast<T>(static_cast<std::int32_t>(b.words[1][i] >> 8));
    bits[4 * i + 2] = static_cast<T>(static_cast<std::int32_t>(b.words[2][i] >> 8));
    bits[4 * i + 3] = static_cast<T>(static_cast<std::int32_t>(b.words[3][i] >> 8));
  }
}

// In vectors by hand: a branch on random bits would be mispredicted half of the time.
template <class T>
void drop(const T* x, const T* bits, T threshold, T scale, std::int64_t n, T* y) {
  std::int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) {
    const Vec<T> scaled = load(x + i) * scale;
    store(y + i, load(bits + i) >= threshold ? scaled : Vec<T>{});
  }
  for (; i < n; ++i) y[i] = bits[i] >= threshold ? x[i] * scale : T(0);
}

template <class T>
void drop_blocks(const DropoutArgs& a, std::int64_t begin, std::int64_t end) {
  const T threshold = static_cast<T>(std::ceil(a.p * 0x1p24)), scale = static_cast<T>(1.0 / (1.0 - a.p));
  for (std::int64_t block = begin; block < end; ++block) {
    Block b;
    philox(a.seed, a.offset.value, static_cast<std::uint64_t>(block * kBlock), b);
    T bits[kBlockElements];
    bits_of(b, bits);
    const std::int64_t at = block * kBlockElements;
    const std::int64_t n = least(a.size - at, kBlockElements);
    drop(static_cast<const T*>(a.x) + at, bits, threshold, scale, n, static_cast<T*>(a.y) + at);
  }
}

void run_dropout(const DropoutArgs& a) {
  with_dtype(a.dtype, [&]<class T>(T) {
    parallel_ranges(ceil_div(a.size, kBlockElements), kGrain / kBlockElements,
                    [&](std::int64_t begin, std::int64_t end) { drop_blocks<T>(a, begin, end); });
  });
}

const Register kDropout{dropout, kIsa, run_dropout};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
