// How a check stops a launch: the fiber notes the failure and leaves to the host, which throws. No exception and no
// unwinding crosses a fiber.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "simt/device.hpp"

namespace simt {

struct Access;

constexpr int kMaxFrames = 24;

struct Failure {
  std::string check, message, where;
  const char* label = "at";                // what `frames` tell
  std::uintptr_t frames[kMaxFrames] = {};  // of the fiber that failed, innermost first
  int frame_count = 0;
  const char* earlier_label = nullptr;
  std::uintptr_t earlier_pc = 0;
};

// The other access of a conflict.
struct Earlier {
  const char* label = nullptr;
  std::uint32_t pc = 0;  // counts from the module's begin
};

[[noreturn, gnu::format(printf, 2, 3)]] void fail(const char* check, const char* format, ...);
[[noreturn, gnu::format(printf, 4, 5)]] void fail_at(const Access& access, Earlier earlier, const char* check,
                                                     const char* format, ...);

error describe(const Failure& failure);  // asks addr2line for files and lines

const char* base_name(const char* path);

}  // namespace simt
