// Whose memory an address is: a fiber's stack, shared memory (dynamic, or the module's thread-locals), memory lent to
// the device, or none of these. From this come the checks "bounds", "align" and "local".
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "simt/shadow.hpp"
#include "simt/static_shared.hpp"

namespace simt {

constexpr std::size_t kSharedMax = 227u << 10;  // the most that any architecture lets a block have

// The library or program that holds the kernels and the engine.
struct Module {
  std::uintptr_t begin = 0, end = 0, bias = 0;
  std::ptrdiff_t tls_offset = 0;  // from the anchor below to the begin of the thread-locals
  std::size_t tls_bytes = 0;

  void find();
  std::uintptr_t tls_begin() const;  // of the calling thread
  std::string path() const;
  bool holds(std::uintptr_t address) const { return address - begin < end - begin; }
};

class Memory {
 public:
  void set_up(const Module& module);
  void begin_launch(std::size_t dynamic_bytes, std::uintptr_t tls_begin);
  void begin_block();  // poisons the dynamic shared memory
  void abandon_launch();

  // Checks an access by a kernel and notes it; `natural`: the address must be a multiple of the size.
  Space access(const Access& access, bool natural);
  // "shared array red +4": where an access that came through here went.
  void describe(std::uintptr_t address, char* text, std::size_t size) const;
  void* dynamic() const { return dynamic_; }

  void lend(const void* p, std::size_t bytes, bool writable, bool fresh);
  void end_loan(const void* p);
  void written_by_host(void* p, std::size_t bytes);

 private:
  struct Loan {
    std::uintptr_t begin, end;
    bool writable;
    bool fresh;  // reading what no kernel wrote is an error
    std::shared_ptr<Shadow> shadow;
  };

  std::vector<Loan>::iterator first_after(std::uintptr_t begin);
  Loan* find(const Access& access);
  const StaticVariable* variable_at(std::size_t offset) const;
  void check_dynamic(const Access& access, std::size_t offset);
  void check_static(const Access& access, std::size_t offset);
  Space access_global(const Access& access);
  void check_bounds(const Access& access, const Loan& loan) const;
  [[noreturn]] void outside(const Access& access) const;

  char* dynamic_ = nullptr;
  std::size_t dynamic_bytes_ = 0, tls_bytes_ = 0;
  std::uintptr_t tls_begin_ = 0;
  Shadow dynamic_shadow_{0}, static_shadow_{0};
  std::vector<StaticVariable> variables_;
  std::vector<Loan> loans_;  // by begin; equal ones in the order in which they were made
  Loan* last_ = nullptr;     // found last
};

}  // namespace simt
