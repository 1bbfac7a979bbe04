// The matrix instructions by themselves, so that a machine's first test can tell a wrong fragment from a wrong kernel.
#pragma once

#include <cstdint>

#include "cuda/device.hpp"

namespace stapes::cuda {

enum class Mma : std::uint8_t { kM16N8K16Bf16, kM16N8K16F16, kM16N8K8F16, kM16N8K8Tf32, kM16N8K8Tf32x3 };

// Row-major: a (16, k), b (k, 8), bt (8, k) its transpose, d (3, 16, 8) float32. a, b and bt are 16-bit values, or
// float32 for tf32; b may be null there. All on the device.
struct FragmentSelftestArgs {
  Mma mma;
  const void *a, *b, *bt;
  float* d;
};

// d[0] = a b with b through ldmatrix.trans, d[1] = a b with bt through ldmatrix, d[2] = a b with operands loaded
// element by element. tf32 has no ldmatrix of b: all three are by element there.
void fragment_selftest(const FragmentSelftestArgs& args, Stream stream);

}  // namespace stapes::cuda
