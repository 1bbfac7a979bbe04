// ldmatrix, mma and cp.async, by the fragment layouts of the PTX manual ("Warp-level matrix instructions"): with
// g = lane / 4 and t = lane % 4, a lane holds of D the rows g and g + 8, columns 2t and 2t + 1.
#include <algorithm>
#include <bit>
#include <cstring>

#include "simt/engine.hpp"
#include "simt/numbers.hpp"

namespace simt {
namespace {

int current_warp() { return engine.current->id / kWarp; }

template <int kMatrices>
void ldmatrix(void* const* lane_args) {
  std::uint16_t m[kMatrices][8][8];
  ++stats.ldmatrix;
  for (int i = 0; i < kMatrices; ++i) {
    int rows_in_bank[8] = {};  // banks in groups of 16 bytes
    for (int r = 0; r < 8; ++r) {
      const int lane = i * 8 + r;
      const void* row = static_cast<Ldmatrix*>(lane_args[lane])->row;
      const auto address = reinterpret_cast<std::uintptr_t>(row);
      const Access access{Kind::kWarpRead, current_warp() * kWarp + lane, address, 16, 0};
      if (engine.memory.access(access, true) != Space::kShared) {
        fail_at(access, {}, "bounds", "ldmatrix: the row of lane %d is not in shared memory", lane);
      }
      std::memcpy(m[i][r], row, 16);
      ++rows_in_bank[address / 16 % 8];
    }
    stats.ldmatrix_conflicts += static_cast<std::uint64_t>(*std::max_element(rows_in_bank, rows_in_bank + 8) - 1);
  }
  const auto pair = [](std::uint16_t low, std::uint16_t high) { return low | std::uint32_t{high} << 16; };
  for (int l = 0; l < kWarp; ++l) {
    const auto& a = *static_cast<Ldmatrix*>(lane_args[l]);
    const int g = l / 4, t = l % 4 * 2;
    for (int i = 0; i < kMatrices; ++i) {
      a.result[i] = a.transposed ? pair(m[i][t][g], m[i][t + 1][g]) : pair(m[i][g][t], m[i][g][t + 1]);
    }
  }
}

// Each element of the accumulator is summed in the order of k, in float32: the hardware's order is not documented.
template <int K>
void multiply_add(void* const* lane_args, const float (&a)[16][K], const float (&b)[K][8]) {
  ++stats.mma;
  float d[16][8];
  for (int l = 0; l < kWarp; ++l) {
    const float* from = static_cast<Mma*>(lane_args[l])->d;
    for (int e = 0; e < 4; ++e) d[l / 4 + e / 2 * 8][l % 4 * 2 + e % 2] = from[e];
  }
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < K; ++k) {
      for (int j = 0; j < 8; ++j) d[i][j] += a[i][k] * b[k][j];
    }
  }
  for (int l = 0; l < kWarp; ++l) {
    float* to = static_cast<Mma*>(lane_args[l])->d;
    for (int e = 0; e < 4; ++e) to[e] = d[l / 4 + e / 2 * 8][l % 4 * 2 + e % 2];
  }
}

float from_bf16(std::uint32_t bits) { return __bfloat162float({static_cast<std::uint16_t>(bits)}); }
float from_f16(std::uint32_t bits) { return __half2float({static_cast<std::uint16_t>(bits)}); }
float from_tf32(std::uint32_t bits) {
  return std::bit_cast<float>(bits & 0xffffe000u);
}  // 10 bits of mantissa are read

// 16-bit operands: registers 0 and 1 of A are the rows g and g + 8 of columns 0 to 7, registers 2 and 3 of columns 8
// to 15.
template <int K, float (*convert)(std::uint32_t)>
void mma_16bit(void* const* lane_args) {
  float a[16][K], b[K][8];
  for (int l = 0; l < kWarp; ++l) {
    const auto& m = *static_cast<Mma*>(lane_args[l]);
    const int g = l / 4, t = l % 4 * 2;
    for (int r = 0; r < K / 4; ++r) {
      for (int h = 0; h < 2; ++h) a[g + r % 2 * 8][t + r / 2 * 8 + h] = convert(m.a[r] >> (16 * h) & 0xffffu);
    }
    for (int r = 0; r < K / 8; ++r) {
      for (int h = 0; h < 2; ++h) b[t + r * 8 + h][g] = convert(m.b[r] >> (16 * h) & 0xffffu);
    }
  }
  multiply_add<K>(lane_args, a, b);
}

void arrive(const Copy& c) {
  if (c.predicate) {
    std::memcpy(c.destination, c.source, static_cast<std::size_t>(c.bytes));
  } else {
    std::memset(c.destination, 0, static_cast<std::size_t>(c.bytes));
  }
}

}  // namespace

void exec_ldmatrix_x2(void* const* lane_args, std::uint32_t) { ldmatrix<2>(lane_args); }
void exec_ldmatrix_x4(void* const* lane_args, std::uint32_t) { ldmatrix<4>(lane_args); }

void exec_mma_m16n8k16_bf16(void* const* lane_args, std::uint32_t) { mma_16bit<16, from_bf16>(lane_args); }
void exec_mma_m16n8k16_f16(void* const* lane_args, std::uint32_t) { mma_16bit<16, from_f16>(lane_args); }
void exec_mma_m16n8k8_f16(void* const* lane_args, std::uint32_t) { mma_16bit<8, from_f16>(lane_args); }
void exec_mma_m16n8k8_tf32(void* const* lane_args, std::uint32_t) {
  float a[16][8], b[8][8];
  for (int l = 0; l < kWarp; ++l) {
    const auto& m = *static_cast<Mma*>(lane_args[l]);
    const int g = l / 4, t = l % 4;
    for (int r = 0; r < 4; ++r) a[g + r % 2 * 8][t + r / 2 * 4] = from_tf32(m.a[r]);
    for (int r = 0; r < 2; ++r) b[t + r * 4][g] = from_tf32(m.b[r]);
  }
  multiply_add<8>(lane_args, a, b);
}

void cp_async(void* destination, const void* source, int bytes, bool predicate) {
  Engine& e = engine;
  Fiber& f = *e.current;
  const auto pc = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  const auto size = static_cast<std::size_t>(bytes);
  const Access write{Kind::kAsyncIssue, f.id, reinterpret_cast<std::uintptr_t>(destination), size, pc};
  const Access read{Kind::kRead, f.id, reinterpret_cast<std::uintptr_t>(source), size, pc};
  if (e.memory.access(write, true) != Space::kShared) {
    fail_at(write, {}, "bounds", "the destination of a cp.async is not in shared memory");
  }
  if (predicate && e.memory.access(read, true) != Space::kGlobal) {
    fail_at(read, {}, "bounds", "the source of a cp.async is not in global memory");
  }
  Copy copy{static_cast<char*>(destination), static_cast<const char*>(source), bytes, predicate, false, f.groups, pc};
  if (e.shuffles() && e.random() % 4 == 0) {  // the hardware may also be quick
    arrive(copy);
    copy.arrived = true;
  }
  f.copies.push_back(copy);
}

void cp_async_commit() { ++engine.current->groups; }

void cp_async_wait(int keep) {
  Engine& e = engine;
  Fiber& f = *e.current;
  std::size_t done = 0;
  for (; done < f.copies.size() && f.copies[done].group < f.groups - keep; ++done) {
    const Copy& c = f.copies[done];
    if (!c.arrived) arrive(c);
    if (e.instrumented) {
      e.memory.access({Kind::kAsyncDone, f.id, reinterpret_cast<std::uintptr_t>(c.destination),
                       static_cast<std::size_t>(c.bytes), c.pc},
                      false);
    }
  }
  f.copies.erase(f.copies.begin(), f.copies.begin() + static_cast<std::ptrdiff_t>(done));
}

}  // namespace simt
