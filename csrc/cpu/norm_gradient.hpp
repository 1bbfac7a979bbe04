// The backward of batch normalisation and ReLU in pieces, for kernels that make g, the gradient of ReLU's output, block
// by block: the sums of it that dgamma, dbeta and dx need, and dx of it, made once these are there.
//   g = dz where z > 0, else 0 (NaN passes); dx = scale * g + slope * (x - mean) + shift, as batch_norm2d.hpp tells
#pragma once

#include "cpu/batch_norm2d.hpp"
#include "cpu/outer.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

// Per channel the sums of g and of g * (x - mean), of pieces that are added up in their order. Those of a block are in
// T, others in double.
template <class T>
class GradientSums {
 public:
  GradientSums(Index pieces, Index C)
      : C_(C),
        pieces_(pieces),
        sums_(workspace_of<double>((pieces + 1) * 2 * C)),
        some_(workspace_of<T>(pieces * 2 * C)) {
    for (Index i = 0; i < (pieces + 1) * 2 * C; ++i) sums_.template as<double>()[i] = 0;
  }

  // Adds pixels of dz, not yet masked.
  void add(Index piece, const T* dz, const T* x, Index pixels, const NormRelu<T>& norm) const {
    T* some = some_.template as<T>() + piece * 2 * C_;
    double* sums = sums_.template as<double>() + (piece + 1) * 2 * C_;
    for_pixel_blocks(pixels, [&](Index first, Index n) {
      const Index from = first * C_;
      for_channels<T>(C_, [&]<class V>(V, Index c) {
        const auto at = norm.template at<V>(c);
        V sum{}, product{};
        for (Index i = from + c; i < from + n * C_; i += C_) {
          const V value = load_as<V>(x + i);
          const V g = at.normal(value) <= V{} ? V{} : load_as<V>(dz + i);
          sum += g;
          product += g * (value - at.center);
        }
        store_as(some + c, sum);
        store_as(some + C_ + c, product);
      });
      for (Index i = 0; i < 2 * C_; ++i) sums[i] += static_cast<double>(some[i]);
    });
  }

  // (2, C), once all is added.
  const double* total() const {
    double *all = sums_.template as<double>(), *piece = all + 2 * C_;
    for (Index c = 0; c < 2 * C_; ++c) all[c] = 0;
    for (Index i = 0; i < pieces_; ++i, piece += 2 * C_)
      for (Index c = 0; c < 2 * C_; ++c) all[c] += piece[c];
    return all;
  }

 private:
  Index C_, pieces_;
  Workspace sums_, some_;
};

// dx, of which dz is there, and what the sums gave.
template <class T>
class PendingGradient {
 public:
  // Writes dgamma and dbeta as well.
  PendingGradient(const BatchNorm2dBwdArgs& a, const T* kept, T* dz, const GradientSums<T>& sums)
      : C_(a.channels),
        pixels_(a.rows),
        training_(a.training),
        x_(static_cast<const T*>(a.x)),
        dz_(dz),
        norm_(kept, C_),
        memory_(workspace_of<T>(4 * C_)) {
    T* p = memory_.template as<T>();
    gradient_ = {p, p + C_, p + 2 * C_, p + 3 * C_};
    const double* total = sums.total();
    finish(a, total, total + C_, gradient_);
  }

  // Pixels [first, first + count) of dx, (count, C), written to `to` and returned.
  const T* take(Index first, Index count, T* to) const {
    training_ ? make<true>(first, count, to) : make<false>(first, count, to);
    return to;
  }

  struct Fetch {
    Prefetch dz, x;
    void operator()() {
      dz();
      x();
    }
  };
  // What fetches what `take` reads, a piece at each of `calls` calls.
  Fetch fetch(Index first, Index count, Index calls) const {
    return {Prefetch(dz_ + first * C_, count * C_, calls), Prefetch(x_ + first * C_, count * C_, calls)};
  }

  // Puts dx where dz was.
  const T* complete() const {
    const Index pieces = ceil_div(pixels_ * C_, kGrain);
    parallel_for(pieces, [&](Index i) {
      const Range piece = part(pixels_, pieces, i);
      take(piece.begin, piece.end - piece.begin, dz_ + piece.begin * C_);
    });
    return dz_;
  }

 private:
  template <bool kTraining>
  void make(Index first, Index count, T* to) const {
    constexpr Index kPixelsAhead = 16, kLine = 64 / sizeof(T);
    const NormRelu<T> norm = norm_.reader();
    for (Index i = first * C_; i < (first + count) * C_; i += C_, to += C_) {
      for (Index c = kPixelsAhead * C_; c < (kPixelsAhead + 1) * C_; c += kLine) {
        __builtin_prefetch(x_ + i + c);
        __builtin_prefetch(dz_ + i + c);
      }
      for_each_channel<T>(C_, [&]<class V>(V, Index c) {
        const auto at = norm.template at<V>(c);
        const V x = load_as<V>(x_ + i + c);
        V dx = load_as<V>(gradient_.scale + c) * (at.normal(x) <= V{} ? V{} : load_as<V>(dz_ + i + c));
        if constexpr (kTraining) {
          dx += load_as<V>(gradient_.slope + c) * (x - at.center) + load_as<V>(gradient_.shift + c);
        }
        store_as(to + c, dx);
      });
    }
  }

  Index C_, pixels_;
  bool training_;
  const T* x_;
  T* dz_;
  NormReluOf<T> norm_;
  Workspace memory_;
  InputGradient<T> gradient_;
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
