#include "simt/static_shared.hpp"

#include <cxxabi.h>
#include <link.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

namespace simt {
namespace {

template <class T>
std::vector<T> read(std::ifstream& file, std::uint64_t at, std::uint64_t bytes) {
  std::vector<T> items(bytes / sizeof(T));
  file.seekg(static_cast<std::streamoff>(at));
  file.read(reinterpret_cast<char*>(items.data()), static_cast<std::streamsize>(items.size() * sizeof(T)));
  return items;
}

// "kernel(float*)::red" is red.
std::string short_name(const char* symbol) {
  int status = 0;
  char* demangled = abi::__cxa_demangle(symbol, nullptr, nullptr, &status);
  std::string name = demangled != nullptr ? demangled : symbol;
  std::free(demangled);
  const std::size_t colons = name.rfind("::");
  return colons == std::string::npos ? name : name.substr(colons + 2);
}

}  // namespace

std::vector<StaticVariable> read_thread_locals(const std::string& path_of_module) {
  std::vector<StaticVariable> variables;
  std::ifstream file(path_of_module, std::ios::binary);
  const auto header = read<ElfW(Ehdr)>(file, 0, sizeof(ElfW(Ehdr)));
  const auto sections = read<ElfW(Shdr)>(file, header[0].e_shoff, header[0].e_shnum * sizeof(ElfW(Shdr)));
  for (const ElfW(Shdr) & section : sections) {
    if (!file || section.sh_type != SHT_SYMTAB || section.sh_link >= sections.size()) continue;
    const ElfW(Shdr) & names = sections[section.sh_link];
    std::vector<char> text = read<char>(file, names.sh_offset, names.sh_size);
    text.push_back('\0');
    for (const ElfW(Sym) & symbol : read<ElfW(Sym)>(file, section.sh_offset, section.sh_size)) {
      if (ELF64_ST_TYPE(symbol.st_info) != STT_TLS || symbol.st_shndx == SHN_UNDEF || symbol.st_name >= text.size()) {
        continue;
      }
      variables.push_back({symbol.st_value, symbol.st_size, short_name(&text[symbol.st_name])});
    }
  }
  std::sort(variables.begin(), variables.end(),
            [](const StaticVariable& a, const StaticVariable& b) { return a.offset < b.offset; });
  return variables;
}

}  // namespace simt
