// The moments of a map that another kernel writes piece by piece, taken of each row of it while it is in the cache.
// Numerics: up to 512 pixels at a time, sums of 16 of them in T, these in double, about the mean o of the first 16
// (rounded): since (mean - o)^2 <= n / 16 var for n pixels, o costs the variance little. Merged by Chan's formula.
#pragma once

#include "cpu/columns.hpp"
#include "cpu/lanes.hpp"
#include "cpu/workspace.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

// (mean, m2) of n values each, joined with those of n_other values each.
inline void merge_moments(double n, double* mean, double* m2, double n_other, const double* mean_other,
                          const double* m2_other, Index channels) {
  const double share = n_other / (n + n_other), weight = n * share;
  for (Index c = 0; c < channels; ++c) {
    const double d = mean_other[c] - mean[c];
    mean[c] += d * share;
    m2[c] += m2_other[c] + d * d * weight;
  }
}

// f(first, n) for blocks of few pixels: what is summed in T.
template <class F>
void for_pixel_blocks(Index pixels, const F& f) {
  constexpr Index kPixels = 16;
  for (Index first = 0; first < pixels; first += kPixels) f(first, least(kPixels, pixels - first));
}

template <class T>
class PieceMoments {
 public:
  PieceMoments(Index pieces, int threads, Index C)
      : C_(C),
        pieces_(pieces),
        counts_(workspace_of<double>(pieces)),
        moments_(workspace_of<double>(pieces * 2 * C)),
        row_(workspace_of<double>(threads * 2 * C)),
        some_(workspace_of<T>(threads * 3 * C)) {
    for (Index i = 0; i < pieces; ++i) counts_.template as<double>()[i] = 0;
  }

  // Adds pixels, in their order.
  void add(Index piece, int thread, const T* y, Index pixels) const {
    for (Index first = 0; first < pixels; first += kMostPixels) {
      add_few(piece, thread, y + first * C_, least(kMostPixels, pixels - first));
    }
  }

  // The mean and biased variance of every channel, once all is added.
  void total(double* mean, double* var) const {
    for (Index c = 0; c < C_; ++c) mean[c] = var[c] = 0;
    double n = 0;
    for (Index i = 0; i < pieces_; ++i) {
      const double* piece = moments_.template as<double>() + i * 2 * C_;
      const double n_piece = counts_.template as<double>()[i];
      if (n_piece == 0) continue;
      merge_moments(n, mean, var, n_piece, piece, piece + C_, C_);
      n += n_piece;
    }
    for (Index c = 0; c < C_; ++c) var[c] /= n;
  }

 private:
  static constexpr Index kMostPixels = 512;

  void add_few(Index piece, int thread, const T* y, Index pixels) const {
    double& count = counts_.template as<double>()[piece];
    double *mean = moments_.template as<double>() + piece * 2 * C_, *row = row_.template as<double>() + thread * 2 * C_;
    take(y, pixels, some_.template as<T>() + thread * 3 * C_, row);
    const double n = static_cast<double>(pixels);
    if (count == 0) {
      for (Index c = 0; c < 2 * C_; ++c) mean[c] = row[c];
    } else {
      merge_moments(count, mean, mean + C_, n, row, row + C_, C_);
    }
    count += n;
  }

  // Their mean and m2, (2, C).
  void take(const T* y, Index pixels, T* some, double* row) const {
    T* origin = some + 2 * C_;
    for (Index c = 0; c < 2 * C_; ++c) row[c] = 0;
    for_pixel_blocks(pixels, [&](Index first, Index n) {
      const T* block = y + first * C_;
      for_channels<T>(C_, [&]<class V>(V, Index c) {
        V sum{}, square{};
        if (first == 0) {
          for (Index i = c; i < n * C_; i += C_) sum += load_as<V>(block + i);
          store_as(origin + c, sum / static_cast<T>(n));
          sum = V{};
        }
        const V o = load_as<V>(origin + c);
        for (Index i = c; i < n * C_; i += C_) {
          const V d = load_as<V>(block + i) - o;
          sum += d;
          square += d * d;
        }
        store_as(some + c, sum);
        store_as(some + C_ + c, square);
      });
      for (Index c = 0; c < 2 * C_; ++c) row[c] += static_cast<double>(some[c]);
    });
    const double n = static_cast<double>(pixels);
    for (Index c = 0; c < C_; ++c) {
      const double distance = row[c] / n, left = row[C_ + c] - row[c] * distance;
      row[c] = static_cast<double>(origin[c]) + distance;
      row[C_ + c] = left < 0 ? 0 : left;
    }
  }

  Index C_, pieces_;
  Workspace counts_, moments_, row_, some_;
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
