// Every file of cpu/ (but this one's partner) is compiled once for each instruction set; the best
// one that the machine has is picked at run time, or the one that STAPES_ISA names.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace stapes::cpu {

enum class Isa : std::uint8_t { kGeneric, kV2, kV3, kV4 };
inline constexpr std::size_t kIsaCount = 4;

Isa active_isa();  // throws std::runtime_error where STAPES_ISA asks for what is not there
const char* name_of(Isa isa);

// A kernel in its variants. Constant-initialised, so that variants can register themselves from
// static initialisers in any order.
template <class Args>
class Kernel {
 public:
  using Function = void (*)(const Args&);

  void operator()(const Args& args) const { variants_[static_cast<std::size_t>(active_isa())](args); }
  // Another variant, which the machine must have: a kernel may know one that is ahead of it.
  Function variant(Isa isa) const { return variants_[static_cast<std::size_t>(isa)]; }
  void add(Isa isa, Function f) { variants_[static_cast<std::size_t>(isa)] = f; }

 private:
  std::array<Function, kIsaCount> variants_{};
};

struct Register {
  template <class Args>
  Register(Kernel<Args>& kernel, Isa isa, typename Kernel<Args>::Function f) {
    kernel.add(isa, f);
  }
};

}  // namespace stapes::cpu
