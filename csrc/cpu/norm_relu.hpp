// How a convolution reads its input: as it lies, or normalised and rectified on the way,
//   y = max(0, (x - center) * scale + shift) for each channel; NaN stays NaN.
// Both copy pixels, and give what one vector of channels becomes.
#pragma once

#include <cstring>

#include "cpu/lanes.hpp"
#include "cpu/parallel.hpp"
#include "cpu/workspace.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

template <class T>
struct AsItLies {
  struct Channels {
    [[gnu::always_inline]] Vec<T> operator()(Vec<T> x) const { return x; }
  };
  [[gnu::always_inline]] Channels channels(Index) const { return {}; }

  void copy(const T* from, Index pixels, Index C, T* to) const {
    std::memcpy(to, from, static_cast<std::size_t>(pixels * C) * sizeof(T));
  }
};

template <class T>
struct NormRelu {
  const T *center, *scale, *shift;  // whole vectors for `channels`

  template <class V>
  struct Coefficients {
    V center, scale, shift;

    [[gnu::always_inline]] V normal(V x) const { return (x - center) * scale + shift; }
    [[gnu::always_inline]] V operator()(V x) const {
      const V z = normal(x);
      return V{} > z ? V{} : z;
    }
  };

  template <class V>
  [[gnu::always_inline]] Coefficients<V> at(Index c) const {
    return {load_as<V>(center + c), load_as<V>(scale + c), load_as<V>(shift + c)};
  }
  [[gnu::always_inline]] Coefficients<Vec<T>> channels(Index c) const { return at<Vec<T>>(c); }

  void copy(const T* from, Index pixels, Index C, T* to) const {
    for (Index i = 0; i < pixels; ++i, from += C, to += C) {
      for_channels<T>(C, [&]<class V>(V, Index c) { store_as(to + c, at<V>(c)(load_as<V>(from + c))); });
    }
  }
};

// The coefficients of C channels that lie together, (3, C), put where whole vectors of them can be read.
template <class T>
class NormReluOf {
 public:
  NormReluOf(const T* coefficients, Index C) : row_(round_up(C, kLanes<T>)), memory_(workspace_of<T>(3 * row_)) {
    T* to = memory_.template as<T>();
    for (Index i = 0; i < 3; ++i)
      for (Index c = 0; c < row_; ++c) to[i * row_ + c] = c < C ? coefficients[i * C + c] : T(0);
  }

  NormRelu<T> reader() const {
    const T* p = memory_.template as<T>();
    return {p, p + row_, p + 2 * row_};
  }

 private:
  Index row_;
  Workspace memory_;
};

// What a convolution that cannot read through NormRelu reads: max(0, z) in scratch memory.
template <class T>
class Rectified {
 public:
  Rectified(const T* x, Index pixels, Index C, const NormRelu<T>& norm) : memory_(workspace_of<T>(pixels * C)) {
    T* y = memory_.template as<T>();
    parallel_ranges(pixels, ceil_div(kGrain, C),
                    [&](Index begin, Index end) { norm.copy(x + begin * C, end - begin, C, y + begin * C); });
  }

  const T* data() const { return memory_.template as<T>(); }

 private:
  Workspace memory_;
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
