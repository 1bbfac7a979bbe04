// A view of an array that somebody else owns: what every operator takes and returns.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace stapes {

enum class DType : std::uint8_t { kFloat32, kFloat64, kFloat16, kBFloat16, kInt32, kInt64, kUInt8 };

std::size_t size_of(DType dtype);
const char* name_of(DType dtype);
DType wide_of(DType dtype);  // of statistics, losses and gradients of weights: float64 for float64, else float32

// How float32 numbers are multiplied on CUDA: by FFMA, on tensor cores as three products of TF32 parts (about as
// exact), or as one product of TF32 numbers (11 bits). The CPU has the first alone, and so have 16-bit numbers.
enum class Precision : std::uint8_t { kFp32, kFp32Split, kTf32 };

struct Device {
  enum class Kind : std::uint8_t { kCpu, kCuda };
  Kind kind = Kind::kCpu;
  int index = 0;

  bool is_cpu() const { return kind == Kind::kCpu; }
  bool operator==(const Device&) const = default;
};

std::string to_string(const Device& device);

class Shape {
 public:
  static constexpr int kMaxDims = 8;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> sizes);
  template <class It>
  Shape(It first, It last) {
    for (; first != last; ++first) push_back(*first);
  }

  int ndim() const { return ndim_; }
  std::int64_t operator[](int i) const { return sizes_[static_cast<std::size_t>(i)]; }
  std::int64_t last() const { return sizes_[static_cast<std::size_t>(ndim_ - 1)]; }
  std::int64_t numel() const;
  void push_back(std::int64_t size);
  bool operator==(const Shape& other) const;

  const std::int64_t* begin() const { return sizes_.data(); }
  const std::int64_t* end() const { return sizes_.data() + ndim_; }

 private:
  std::array<std::int64_t, kMaxDims> sizes_{};
  int ndim_ = 0;
};

std::string to_string(const Shape& shape);

// Always C-contiguous and aligned to its element; the bindings refuse anything else.
struct Tensor {
  void* data = nullptr;
  Shape shape;
  DType dtype = DType::kFloat32;
  Device device;
  bool writable = false;
  std::uintptr_t stream = 0;  // CUDA: the stream to launch on

  std::int64_t numel() const { return shape.numel(); }
  std::size_t nbytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype); }
};

}  // namespace stapes
