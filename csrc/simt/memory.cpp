#include "simt/memory.hpp"

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <new>

#include "simt/asan.hpp"
#include "simt/engine.hpp"

namespace simt {
namespace {

thread_local char tls_anchor;  // shows where this thread has the module's thread-locals, and makes it have them

constexpr std::size_t kPage = 4096;
constexpr std::size_t kDynamicBytes = (kSharedMax + kPage - 1) / kPage * kPage;

int find_module(dl_phdr_info* info, std::size_t, void* result) {
  auto* module = static_cast<Module*>(result);
  const auto self = reinterpret_cast<std::uintptr_t>(&find_module);
  Module found;
  found.bias = info->dlpi_addr;
  found.begin = ~std::uintptr_t{0};
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr) & header = info->dlpi_phdr[i];
    if (header.p_type == PT_LOAD) {
      found.begin = std::min<std::uintptr_t>(found.begin, info->dlpi_addr + header.p_vaddr);
      found.end = std::max<std::uintptr_t>(found.end, info->dlpi_addr + header.p_vaddr + header.p_memsz);
    } else if (header.p_type == PT_TLS) {
      found.tls_offset = static_cast<char*>(info->dlpi_tls_data) - &tls_anchor;
      found.tls_bytes = header.p_memsz;
    }
  }
  if (!found.holds(self)) return 0;
  *module = found;
  return 1;
}

}  // namespace

void Module::find() {
  tls_anchor = 1;  // before anybody asks for the address of the thread-locals: a library has none until used
  dl_iterate_phdr(find_module, this);
}

std::uintptr_t Module::tls_begin() const {
  tls_anchor = 1;
  return reinterpret_cast<std::uintptr_t>(&tls_anchor + tls_offset);
}

std::string Module::path() const {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(begin), &info) == 0 || info.dli_fname == nullptr) return "";
  if (std::strchr(info.dli_fname, '/') != nullptr) return info.dli_fname;
  char program[4096];
  const ssize_t length = readlink("/proc/self/exe", program, sizeof program);
  return length > 0 ? std::string(program, static_cast<std::size_t>(length)) : "";
}

void Memory::set_up(const Module& module) {
  void* p = mmap(nullptr, kDynamicBytes + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  dynamic_ = static_cast<char*>(p);
  mprotect(dynamic_ + kDynamicBytes, kPage, PROT_NONE);
  tls_bytes_ = module.tls_bytes;
  dynamic_shadow_ = Shadow(kDynamicBytes);
  static_shadow_ = Shadow(tls_bytes_);
  variables_ = read_thread_locals(module.path());
}

void Memory::begin_launch(std::size_t dynamic_bytes, std::uintptr_t tls_begin) {
  asan_unpoison(dynamic_, kDynamicBytes);
  asan_poison(dynamic_ + dynamic_bytes, kDynamicBytes - dynamic_bytes);
  dynamic_bytes_ = dynamic_bytes;
  tls_begin_ = tls_begin;
}

void Memory::begin_block() { std::memset(dynamic_, 0xff, dynamic_bytes_); }

// Copies in flight will never be waited for: what is known of the memory is of no use.
void Memory::abandon_launch() {
  dynamic_shadow_.forget();
  static_shadow_.forget();
}

// ---- memory lent to the device

std::vector<Memory::Loan>::iterator Memory::first_after(std::uintptr_t begin) {
  return std::upper_bound(loans_.begin(), loans_.end(), begin,
                          [](std::uintptr_t value, const Loan& loan) { return value < loan.begin; });
}

void Memory::lend(const void* p, std::size_t bytes, bool writable, bool fresh) {
  const auto begin = reinterpret_cast<std::uintptr_t>(p);
  const auto place = first_after(begin);
  std::shared_ptr<Shadow> shadow;
  for (auto it = place; it != loans_.begin() && std::prev(it)->begin == begin; --it) {
    if (std::prev(it)->end == begin + bytes) shadow = std::prev(it)->shadow;
  }
  if (!shadow) shadow = std::make_shared<Shadow>(bytes + begin % 4);
  last_ = nullptr;
  loans_.insert(place, Loan{begin, begin + bytes, writable, fresh, std::move(shadow)});
}

void Memory::end_loan(const void* p) {
  const auto begin = reinterpret_cast<std::uintptr_t>(p);
  const auto place = first_after(begin);
  if (place == loans_.begin() || std::prev(place)->begin != begin) return;
  last_ = nullptr;
  loans_.erase(std::prev(place));
}

void Memory::written_by_host(void* p, std::size_t bytes) {
  if (!engine.instrumented || bytes == 0) return;
  Loan* loan = find({Kind::kWrite, 0, reinterpret_cast<std::uintptr_t>(p), bytes, 0});
  if (loan == nullptr) return;
  const std::size_t offset = reinterpret_cast<std::uintptr_t>(p) - loan->begin / 4 * 4;
  const Shadow::Range range = loan->shadow->cells(offset, bytes);
  for (Cell* cell = range.first; cell <= range.last; ++cell) {
    *cell = {};
    cell->write.epoch = 1;
  }
}

// A loan that holds the whole access and allows it, or else one that holds its first byte.
Memory::Loan* Memory::find(const Access& access) {
  const auto suits = [&](const Loan& l) {
    return access.address >= l.begin && access.address + access.bytes <= l.end && (l.writable || is_read(access.kind));
  };
  if (last_ != nullptr && suits(*last_)) return last_;
  Loan* found = nullptr;
  for (auto it = first_after(access.address); it != loans_.begin();) {
    Loan& loan = *--it;
    if (suits(loan)) return last_ = &loan;
    if (access.address < loan.end) found = &loan;
  }
  return found;
}

// ---- accesses

Space Memory::access(const Access& a, bool natural) {
  Engine& e = engine;
  const char* verb = is_read(a.kind) ? "read" : "write";
  if (natural && a.address % a.bytes != 0 && (e.config.checks & kAlign) != 0) {
    fail_at(a, {}, "align", "%zu-byte %s at an address that ends in %03zx", a.bytes, verb, a.address & 0xfffu);
  }
  if (e.stacks.holds(a.address)) {
    if (e.stacks.owner(a.address) != a.thread && (e.config.checks & kLocal) != 0) {
      fail_at(a, {}, "local", "a %s of the local memory of thread %d", verb, e.stacks.owner(a.address));
    }
    return Space::kOwn;
  }
  if (const std::uintptr_t offset = a.address - reinterpret_cast<std::uintptr_t>(dynamic_); offset < kDynamicBytes) {
    check_dynamic(a, offset);
    return Space::kShared;
  }
  if (const std::uintptr_t offset = a.address - tls_begin_; offset < tls_bytes_) {
    check_static(a, offset);
    return Space::kShared;
  }
  return access_global(a);
}

void Memory::check_dynamic(const Access& a, std::size_t offset) {
  const bool inside = offset + a.bytes <= dynamic_bytes_;
  if (!inside && (engine.config.checks & kBounds) != 0) {
    fail_at(a, {}, "bounds", "%zu-byte %s of dynamic shared memory +%zu: the launch asked for %zu bytes", a.bytes,
            is_read(a.kind) ? "read" : "write", offset, dynamic_bytes_);
  }
  if (inside && engine.instrumented) check_cells(dynamic_shadow_, Space::kShared, offset, a, true);
}

void Memory::check_static(const Access& a, std::size_t offset) {
  if (!engine.instrumented) return;
  const StaticVariable* v = variable_at(offset);
  if (v != nullptr && offset + a.bytes > v->offset + v->bytes && (engine.config.checks & kBounds) != 0) {
    fail_at(a, {}, "bounds", "%zu-byte %s of shared array %s +%zu: it has %zu bytes", a.bytes,
            is_read(a.kind) ? "read" : "write", v->name.c_str(), offset - v->offset, v->bytes);
  }
  check_cells(static_shadow_, Space::kShared, offset, a, true);
}

// The last one that begins at or before `offset`.
const StaticVariable* Memory::variable_at(std::size_t offset) const {
  const auto after = std::upper_bound(variables_.begin(), variables_.end(), offset,
                                      [](std::size_t at, const StaticVariable& v) { return at < v.offset; });
  return after == variables_.begin() ? nullptr : &*std::prev(after);
}

void Memory::describe(std::uintptr_t address, char* text, std::size_t size) const {
  const std::size_t dynamic = address - reinterpret_cast<std::uintptr_t>(dynamic_), offset = address - tls_begin_;
  if (dynamic < kDynamicBytes) {
    std::snprintf(text, size, "dynamic shared memory +%zu", dynamic);
  } else if (offset < tls_bytes_) {
    const StaticVariable* v = variable_at(offset);
    std::snprintf(text, size, "shared %s +%zu", v != nullptr ? v->name.c_str() : "memory",
                  offset - (v != nullptr ? v->offset : 0));
  } else {
    std::snprintf(text, size, "global memory +%zu", last_ != nullptr ? address - last_->begin : std::size_t{0});
  }
}

Space Memory::access_global(const Access& a) {
  if (Loan* loan = find(a)) {
    check_bounds(a, *loan);
    last_ = loan;  // for describe()
    if (engine.instrumented && a.address + a.bytes <= loan->end) {
      check_cells(*loan->shadow, Space::kGlobal, a.address - loan->begin / 4 * 4, a, loan->fresh);
    }
    return Space::kGlobal;
  }
  // Constant tables, and the counters of gcov; the parameters of the launch.
  if (engine.module.holds(a.address)) return Space::kOwn;
  const auto parameters = reinterpret_cast<std::uintptr_t>(engine.parameters);
  if (is_read(a.kind) && a.address - parameters < engine.parameter_bytes) return Space::kOwn;
  if ((engine.config.checks & kBounds) != 0) outside(a);
  return Space::kGlobal;
}

void Memory::check_bounds(const Access& a, const Loan& loan) const {
  if ((engine.config.checks & kBounds) == 0) return;
  const std::size_t offset = a.address - loan.begin;
  if (a.address + a.bytes > loan.end) {
    fail_at(a, {}, "bounds", "%zu-byte %s of global memory +%zu: the array has %zu bytes", a.bytes,
            is_read(a.kind) ? "read" : "write", offset, std::size_t{loan.end - loan.begin});
  }
  if (!is_read(a.kind) && !loan.writable) fail_at(a, {}, "bounds", "a write to read-only global memory +%zu", offset);
}

void Memory::outside(const Access& a) const {
  std::uintptr_t after = ~std::uintptr_t{0}, before = after;
  for (const Loan& loan : loans_) {
    if (a.address >= loan.end) after = std::min(after, a.address - loan.end);
    if (a.address < loan.begin) before = std::min(before, loan.begin - a.address);
  }
  const char* verb = is_read(a.kind) ? "read" : "write";
  if (after == before) fail_at(a, {}, "bounds", "%zu-byte %s outside of every array", a.bytes, verb);
  fail_at(a, {}, "bounds", "%zu-byte %s outside of every array, %zu bytes %s one", a.bytes, verb,
          std::size_t{std::min(after, before)}, after <= before ? "after" : "before");
}

}  // namespace simt
