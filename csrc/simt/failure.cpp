#include "simt/failure.hpp"

#include <unwind.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "simt/engine.hpp"

namespace simt {
namespace {

_Unwind_Reason_Code note_frame(_Unwind_Context* context, void* failure) {
  auto* f = static_cast<Failure*>(failure);
  const std::uintptr_t pc = _Unwind_GetIP(context);
  if (pc == 0 || f->frame_count == kMaxFrames) return _URC_END_OF_STACK;
  if (engine.module.holds(pc)) f->frames[f->frame_count++] = pc;
  return _URC_NO_REASON;
}

[[noreturn]] void stop(const char* check, const uint3& thread, const char* label, Earlier earlier, const char* format,
                       va_list arguments) {
  char text[512], where[128];
  std::vsnprintf(text, sizeof text, format, arguments);
  const uint3 block = engine.block_at;
  std::snprintf(where, sizeof where, "in block (%u,%u,%u), thread (%u,%u,%u)", block.x, block.y, block.z, thread.x,
                thread.y, thread.z);
  engine.failure = std::make_unique<Failure>();
  Failure& f = *engine.failure;
  f.check = check;
  f.message = text;
  f.where = where;
  f.label = label;
  f.earlier_label = earlier.label;
  f.earlier_pc = earlier.label != nullptr ? engine.module.begin + earlier.pc : 0;
  _Unwind_Backtrace(note_frame, &f);
  leave_to_host();
}

// Lines of a kernel: not those of the emulator, nor of the C++ library and runtime.cuh through which it calls one.
bool tells_of_a_kernel(const std::string& path) {
  for (const char* other : {"csrc/simt/", "/c++/", "cuda/runtime.cuh", "??"}) {
    if (path.find(other) != std::string::npos) return false;
  }
  return true;
}

// "softmax.cuh:12 < softmax.cu:40", innermost first, for return addresses.
std::string lines_of(const std::uintptr_t* pcs, int count) {
  std::string command = "addr2line -i -e '" + engine.module.path() + "'";
  for (int i = 0; i < count; ++i) {
    char address[32];
    std::snprintf(address, sizeof address, " 0x%zx", static_cast<std::size_t>(pcs[i] - engine.module.bias - 1));
    command += address;
  }
  std::string lines;
  FILE* out = popen((command + " 2>/dev/null").c_str(), "r");
  if (out == nullptr) return "?";
  char line[4096];
  while (std::fgets(line, sizeof line, out) != nullptr) {
    line[std::strcspn(line, " \n")] = '\0';
    if (tells_of_a_kernel(line)) lines += (lines.empty() ? "" : " < ") + std::string(base_name(line));
  }
  pclose(out);
  return lines.empty() ? "?" : lines;
}

}  // namespace

const char* base_name(const char* path) {
  const char* slash = std::strrchr(path, '/');
  return slash != nullptr ? slash + 1 : path;
}

void fail(const char* check, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  stop(check, engine.current->index, "at", {}, format, arguments);
}

void fail_at(const Access& access, Earlier earlier, const char* check, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const Fiber& by = engine.fibers[static_cast<std::size_t>(access.thread)];
  stop(check, by.index, is_read(access.kind) ? "read at" : "write at", earlier, format, arguments);
}

error describe(const Failure& failure) {
  std::string text = failure.message + "\n  " + failure.where;
  if (failure.frame_count > 0)
    text += std::string("\n  ") + failure.label + " " + lines_of(failure.frames, failure.frame_count);
  if (failure.earlier_label != nullptr) {
    text += std::string("\n  ") + failure.earlier_label + " at " + lines_of(&failure.earlier_pc, 1);
  }
  return {failure.check, text};
}

}  // namespace simt
