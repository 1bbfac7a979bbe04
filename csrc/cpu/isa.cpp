#include "cpu/isa.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace stapes::cpu {
namespace {

constexpr std::array<const char*, kIsaCount> kNames{"generic", "x86-64-v2", "x86-64-v3", "x86-64-v4"};

Isa best_isa() {
#if !defined(STAPES_GENERIC_ONLY)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) return Isa::kV4;
  if (__builtin_cpu_supports("x86-64-v3")) return Isa::kV3;
  if (__builtin_cpu_supports("x86-64-v2")) return Isa::kV2;
  throw std::runtime_error("stapes: this processor lacks SSE4.2, which x86-64-v2 needs");
#else
  return Isa::kGeneric;
#endif
}

Isa choose_isa() {
  const Isa best = best_isa();
  const char* wanted = std::getenv("STAPES_ISA");
  if (wanted == nullptr || *wanted == '\0') return best;
  std::string names;
  for (std::size_t i = best == Isa::kGeneric ? 0 : 1; i <= static_cast<std::size_t>(best); ++i) {
    if (std::string(wanted) == kNames[i]) return static_cast<Isa>(i);
    names += std::string(names.empty() ? "" : ", ") + kNames[i];
  }
  throw std::runtime_error(std::string("stapes: STAPES_ISA=") + wanted +
                           " is none of what this machine runs: " + names);
}

}  // namespace

const char* name_of(Isa isa) { return kNames[static_cast<std::size_t>(isa)]; }

Isa active_isa() {
  static const Isa isa = choose_isa();
  return isa;
}

}  // namespace stapes::cpu
