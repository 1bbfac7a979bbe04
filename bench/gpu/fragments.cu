// The self-test of the matrix instructions (csrc/cuda/fragment_selftest.cu) on the GPU of this machine. Prints a line
// an instruction; the exit status is the number of those that computed something else than a b.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <vector>

#include "cuda/fragment_selftest.hpp"
#include "cuda/runtime.cuh"

namespace {

using stapes::cuda::check;
using stapes::cuda::Mma;

constexpr int kM = 16, kN = 8;

struct Instruction {
  Mma mma;
  const char* name;
  int k;
  int bits;  // of the operands
  int arch;  // the first that has it
};

constexpr Instruction kInstructions[] = {
    {Mma::kM16N8K8F16, "m16n8k8 f16", 8, 16, 75},         {Mma::kM16N8K16F16, "m16n8k16 f16", 16, 16, 80},
    {Mma::kM16N8K16Bf16, "m16n8k16 bf16", 16, 16, 80},    {Mma::kM16N8K8Tf32, "m16n8k8 tf32", 8, 32, 80},
    {Mma::kM16N8K8Tf32x3, "m16n8k8 tf32 x 3", 8, 32, 80},
};

std::vector<float> small_integers(int count, unsigned seed) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& v : values) {
    seed = seed * 1664525u + 1013904223u;
    v = static_cast<float>(static_cast<int>(seed >> 24) % 7 - 3);
  }
  return values;
}

std::vector<unsigned char> as_operand(const std::vector<float>& values, const Instruction& i) {
  std::vector<unsigned char> bytes(values.size() * static_cast<std::size_t>(i.bits) / 8);
  for (std::size_t n = 0; n < values.size(); ++n) {
    if (i.bits == 32) {
      std::memcpy(&bytes[4 * n], &values[n], 4);
    } else if (i.mma == Mma::kM16N8K16Bf16) {
      const __nv_bfloat16 v = __float2bfloat16(values[n]);
      std::memcpy(&bytes[2 * n], &v, 2);
    } else {
      const __half v = __float2half(values[n]);
      std::memcpy(&bytes[2 * n], &v, 2);
    }
  }
  return bytes;
}

void* on_device(const std::vector<unsigned char>& bytes) {
  void* p = nullptr;
  check(cudaMalloc(&p, bytes.size()), "cudaMalloc");
  check(cudaMemcpy(p, bytes.data(), bytes.size(), cudaMemcpyHostToDevice), "cudaMemcpy");
  return p;
}

// The largest difference of each of the three results from a b, which small integers make exact.
bool passes(const Instruction& i) {
  const std::vector<float> a = small_integers(kM * i.k, 1), b = small_integers(i.k * kN, 2);
  std::vector<float> bt(b.size()), d(3 * kM * kN, NAN);
  for (int k = 0; k < i.k; ++k) {
    for (int n = 0; n < kN; ++n) bt[static_cast<std::size_t>(n * i.k + k)] = b[static_cast<std::size_t>(k * kN + n)];
  }
  void *da = on_device(as_operand(a, i)), *db = on_device(as_operand(b, i)), *dbt = on_device(as_operand(bt, i));
  float* dd = nullptr;
  const std::size_t bytes = d.size() * sizeof(float);
  check(cudaMalloc(&dd, bytes), "cudaMalloc");
  check(cudaMemcpy(dd, d.data(), bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
  stapes::cuda::fragment_selftest({i.mma, da, db, dbt, dd}, nullptr);
  check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  check(cudaMemcpy(d.data(), dd, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");

  int wrong[3] = {};
  for (int way = 0; way < 3; ++way) {
    for (int m = 0; m < kM; ++m) {
      for (int n = 0; n < kN; ++n) {
        float want = 0;
        for (int k = 0; k < i.k; ++k) {
          want += a[static_cast<std::size_t>(m * i.k + k)] * b[static_cast<std::size_t>(k * kN + n)];
        }
        wrong[way] += d[static_cast<std::size_t>((way * kM + m) * kN + n)] != want;  // NaN is wrong too
      }
    }
  }
  std::printf("%-18s wrong of 128: ldmatrix.trans %d, ldmatrix %d, by element %d\n", i.name, wrong[0], wrong[1],
              wrong[2]);
  return wrong[0] + wrong[1] + wrong[2] == 0;
}

}  // namespace

int main() try {
  int failed = 0;
  const int arch = stapes::cuda::device_arch();
  for (const Instruction& i : kInstructions) {
    if (arch < i.arch) {
      std::printf("%-18s not run: needs sm_%d\n", i.name, i.arch);
    } else {
      failed += !passes(i);
    }
  }
  return failed;
} catch (const std::exception& e) {
  std::printf("%s\n", e.what());
  return 100;
}
