#include "harness.hpp"

#include <string>

namespace {
Case* first = nullptr;
std::string message;  // of the last failure
}  // namespace

Case::Case(std::string_view name_, void (*run_)(const Args&)) : name(name_), run(run_), next(first) { first = this; }

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED void lend(const void* p, std::size_t bytes, bool writable) { simt::track(p, bytes, writable); }
EXPORTED void end_loan(const void* p) { simt::untrack(p); }
EXPORTED void set_seed(std::uint64_t seed) { simt::config().seed = seed; }
EXPORTED void set_checks(unsigned checks) { simt::config().checks = checks; }
EXPORTED std::uint64_t launches() { return simt::stats.launches; }

// Null, or what went wrong.
EXPORTED const char* run_case(const char* name, void* const* arrays, std::int64_t number) {
  for (const Case* c = first; c != nullptr; c = c->next) {
    if (c->name != name) continue;
    try {
      c->run({arrays, number});
      return nullptr;
    } catch (const std::exception& e) {
      message = e.what();
      return message.c_str();
    }
  }
  message = std::string("no such case: ") + name;
  return message.c_str();
}
