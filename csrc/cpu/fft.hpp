// Fourier transforms in double, kDoubles of them at once: one in each lane, so that nothing is ever shuffled.
//   Z[k] = sum over m of z[m] exp(-2 pi i m k / length), of any length
// Layout: vectors of real and of imaginary parts in turn. Sample m is written to where `places` tells; Z comes out in
//   order.
// Work: in place, decimation in time: a pass of factor R makes one transform out of each R neighbours. Factors 8, 4, 2,
//   3 and 5 by hand; any other, R, by its definition, which takes R operations for each number, or above 64 as a
//   convolution (Bluestein's algorithm).
// Numerics: a lane's operations do not depend on the other lanes.
// Source: C. Van Loan, "Computational Frameworks for the Fast Fourier Transform", 1992, chapters 1, 2 and 4.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <numbers>

#include "cpu/parallel.hpp"
#include "cpu/simd.hpp"
#include "cpu/workspace.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

struct Complex {
  Vec<double> re, im;
};

[[gnu::always_inline]] inline Complex operator+(const Complex& a, const Complex& b) {
  return {a.re + b.re, a.im + b.im};
}
[[gnu::always_inline]] inline Complex operator-(const Complex& a, const Complex& b) {
  return {a.re - b.re, a.im - b.im};
}
[[gnu::always_inline]] inline Complex operator*(const Complex& a, double b) { return {a.re * b, a.im * b}; }
// The product with the root of unity at w: real part, imaginary part.
[[gnu::always_inline]] inline Complex turned(const Complex& a, const double* w) {
  return {a.re * w[0] - a.im * w[1], a.re * w[1] + a.im * w[0]};
}
[[gnu::always_inline]] inline Complex quarter_turn(const Complex& a) { return {a.im, -a.re}; }  // times -i

// The transform of two, three, four, ... numbers.
[[gnu::always_inline]] inline void butterfly(Complex (&v)[2]) {
  const Complex a = v[0];
  v[0] = a + v[1];
  v[1] = a - v[1];
}

[[gnu::always_inline]] inline void butterfly(Complex (&v)[3]) {
  constexpr double kSin = 0.86602540378443864676;  // of 2 pi / 3
  const Complex sum = v[1] + v[2], turn = quarter_turn(v[1] - v[2]) * kSin, rest = v[0] - sum * 0.5;
  v[0] = v[0] + sum;
  v[1] = rest + turn;
  v[2] = rest - turn;
}

[[gnu::always_inline]] inline void butterfly(Complex (&v)[4]) {
  const Complex a = v[0] + v[2], b = v[0] - v[2], c = v[1] + v[3], d = quarter_turn(v[1] - v[3]);
  v[0] = a + c;
  v[1] = b + d;
  v[2] = a - c;
  v[3] = b - d;
}

[[gnu::always_inline]] inline void butterfly(Complex (&v)[5]) {
  constexpr double kCos1 = 0.30901699437494742410, kSin1 = 0.95105651629515357212;   // of 2 pi / 5
  constexpr double kCos2 = -0.80901699437494742410, kSin2 = 0.58778525229247312917;  // of 4 pi / 5
  const Complex a = v[1] + v[4], b = v[2] + v[3], c = v[1] - v[4], d = v[2] - v[3];
  const Complex p = v[0] + a * kCos1 + b * kCos2, q = v[0] + a * kCos2 + b * kCos1;
  const Complex s = quarter_turn(c * kSin1 + d * kSin2), t = quarter_turn(c * kSin2 - d * kSin1);
  v[0] = v[0] + a + b;
  v[1] = p + s;
  v[2] = q + t;
  v[3] = q - t;
  v[4] = p - s;
}

[[gnu::always_inline]] inline void butterfly(Complex (&v)[8]) {
  constexpr double kHalf = 0.70710678118654752440;  // of the square root of 2
  Complex a[4] = {v[0], v[2], v[4], v[6]}, b[4] = {v[1], v[3], v[5], v[7]};
  butterfly(a);
  butterfly(b);
  const Complex c = quarter_turn(b[1]), d = quarter_turn(b[3]);
  b[1] = (b[1] + c) * kHalf;
  b[2] = quarter_turn(b[2]);
  b[3] = (d - b[3]) * kHalf;
  for (int r = 0; r < 4; ++r) {
    v[r] = a[r] + b[r];
    v[r + 4] = a[r] - b[r];
  }
}

// The transform of an odd number of numbers as a convolution, since m k = (m^2 + k^2 - (k - m)^2) / 2:
//   Z[k] = c[k] * sum over m of z[m] c[m] conj(c[k - m]), c[m] = exp(-2 pi i (m^2 / 2) / length)
// where 1 / 2 is taken modulo the length. It is computed by transforms of a power of 2.
template <class Fft>
class PrimeFft {
 public:
  // `roots`: exp(-2 pi i k / length).
  PrimeFft(Index length, const double* roots)
      : length_(length),
        size_(static_cast<Index>(std::bit_ceil(static_cast<std::size_t>(2 * length - 1)))),
        chirp_(workspace_of<double>(2 * length)),
        spectrum_(workspace_of<double>(2 * size_)),
        places_(workspace_of<std::uint32_t>(size_)),
        fft_(size_, roots_of_size(), 1) {
    fft_.places(places_.as<std::uint32_t>());
    const Workspace memory = workspace_of<Complex>(size_);
    Complex* z = memory.as<Complex>();
    for (Index m = 0; m < size_; ++m) z[m] = Complex{};
    for (Index m = 0; m < length; ++m) {
      const double* c = roots + 2 * (m * m % length * ((length + 1) / 2) % length);
      chirp()[2 * m] = c[0];
      chirp()[2 * m + 1] = c[1];
      z[place(m)] = z[place(m > 0 ? size_ - m : 0)] = {splat(c[0]), splat(-c[1])};
    }
    fft_.run(z, nullptr);
    for (Index k = 0; k < size_; ++k) {
      spectrum()[2 * k] = z[k].re[0] / static_cast<double>(size_);
      spectrum()[2 * k + 1] = z[k].im[0] / static_cast<double>(size_);
    }
  }

  // How many numbers of scratch memory `run` needs.
  Index scratch() const { return 2 * size_; }

  void run(Complex* z, Complex* scratch) const {
    Complex *a = scratch, *b = scratch + size_;
    for (Index m = 0; m < length_; ++m) a[place(m)] = turned(z[m], chirp() + 2 * m);
    for (Index m = length_; m < size_; ++m) a[place(m)] = Complex{};
    fft_.run(a, nullptr);
    for (Index k = 0; k < size_; ++k) {  // back by the same transform, with the parts in each other's places
      const Complex product = turned(a[k], spectrum() + 2 * k);
      b[place(k)] = {product.im, product.re};
    }
    fft_.run(b, nullptr);
    for (Index k = 0; k < length_; ++k) z[k] = turned({b[k].im, b[k].re}, chirp() + 2 * k);
  }

 private:
  // Where the spectrum will be: `fft_` keeps what it needs.
  const double* roots_of_size() const {
    for (Index k = 0; k < size_; ++k) {
      const double angle = -2 * std::numbers::pi * static_cast<double>(k) / static_cast<double>(size_);
      spectrum()[2 * k] = std::cos(angle);
      spectrum()[2 * k + 1] = std::sin(angle);
    }
    return spectrum();
  }

  double* chirp() const { return chirp_.as<double>(); }
  double* spectrum() const { return spectrum_.as<double>(); }
  Index place(Index m) const { return places_.as<std::uint32_t>()[m]; }

  Index length_, size_;
  Workspace chirp_, spectrum_, places_;
  Fft fft_;
};

class Fft {
 public:
  // `roots`: exp(-2 pi i k / (stride * length)), real and imaginary parts in turn.
  Fft(Index length, const double* roots, Index stride)
      : length_(length), tables_(workspace_of<double>(4 * length + 2 * kMostPasses)) {
    double* at = tables_.as<double>();
    const auto copy = [&](Index k) {
      *at++ = roots[2 * k * stride];
      *at++ = roots[2 * k * stride + 1];
    };
    for (Index done = 1; done < length;) {
      const Index R = next_factor(length / done), step = length / (done * R);
      Pass& p = passes_[count_++] = {R, done, at, nullptr, nullptr};
      for (Index k = 0; k < done; ++k) {
        for (Index q = 1; q < R; ++q) copy(q * k * step);
      }
      done *= R;
      if (by_hand(R)) continue;
      p.roots = at;
      for (Index q = 0; q < R; ++q) copy(q * (length / R));
      if (R > kMostByDefinition) p.prime = std::make_unique<PrimeFft<Fft>>(R, p.roots);
      scratch_ = std::max(scratch_, R + (p.prime ? p.prime->scratch() : 0));
    }
  }

  // Where each sample goes: its digits, the factors' remainders, in the opposite order.
  void places(std::uint32_t* to) const {
    Index count = 1, size = length_;
    to[0] = 0;
    for (int i = count_ - 1; i >= 0; --i) {
      size /= passes_[i].radix;
      for (Index m = count; m < count * passes_[i].radix; ++m) to[m] = static_cast<std::uint32_t>(to[m - count] + size);
      count *= passes_[i].radix;
    }
  }

  // How many numbers of scratch memory `run` needs.
  Index scratch() const { return scratch_; }

  void run(Complex* z, Complex* scratch) const {
    for (int i = 0; i < count_; ++i) {
      const Pass& p = passes_[i];
      switch (p.radix) {
        case 2: pass<2>(z, p); break;
        case 3: pass<3>(z, p); break;
        case 4: pass<4>(z, p); break;
        case 5: pass<5>(z, p); break;
        case 8: pass<8>(z, p); break;
        default: pass_of_any(z, p, scratch);
      }
    }
  }

 private:
  static constexpr int kMostPasses = 32;
  static constexpr Index kMostByDefinition = 64;

  struct Pass {
    Index radix, done;                     // done: the product of the factors before
    const double* twiddles;                // of k < done: radix - 1 roots
    const double* roots;                   // of the radix, where it is not done by hand
    std::unique_ptr<PrimeFft<Fft>> prime;  // of the radix, where it is above kMostByDefinition
  };

  static bool by_hand(Index R) { return R <= 5 || R == 8; }

  // 8 as often as it leaves no single 2, then 4, 2, 3, 5 and what is left.
  static Index next_factor(Index length) {
    if (length % 8 == 0 && (length % 16 != 0 || length % 32 == 0)) return 8;
    if (length % 4 == 0) return 4;
    for (Index f = 2; f * f <= length; f += f == 2 ? 1 : 2) {
      if (length % f == 0) return f;
    }
    return length;
  }

  template <int R>
  void pass(Complex* z, const Pass& p) const {
    if (p.done == 1) {
      for (Index i = 0; i < length_; i += R) join<R, false>(z + i, 1, nullptr);
      return;
    }
    for (Index i = 0; i < length_; i += R * p.done) {
      const double* twiddles = p.twiddles;
      for (Index k = 0; k < p.done; ++k, twiddles += 2 * (R - 1)) join<R, true>(z + i + k, p.done, twiddles);
    }
  }

  template <int R, bool kTwiddles>
  [[gnu::always_inline]] static void join(Complex* z, Index step, [[maybe_unused]] const double* twiddles) {
    Complex v[R];
    for (int q = 0; q < R; ++q) {
      v[q] = z[q * step];
      if constexpr (kTwiddles) {
        if (q > 0) v[q] = turned(v[q], twiddles + 2 * (q - 1));
      }
    }
    butterfly(v);
    for (int r = 0; r < R; ++r) z[r * step] = v[r];
  }

  void pass_of_any(Complex* z, const Pass& p, Complex* v) const {
    for (Index i = 0; i < length_; i += p.radix * p.done) {
      for (Index k = 0; k < p.done; ++k) {
        Complex* at = z + i + k;
        const double* twiddles = p.twiddles + 2 * k * (p.radix - 1);
        v[0] = at[0];
        for (Index q = 1; q < p.radix; ++q) v[q] = turned(at[q * p.done], twiddles + 2 * (q - 1));
        if (p.prime) {
          p.prime->run(v, v + p.radix);
          for (Index r = 0; r < p.radix; ++r) at[r * p.done] = v[r];
          continue;
        }
        for (Index r = 0; r < p.radix; ++r) {
          Complex sum = v[0];
          for (Index q = 1, angle = r; q < p.radix; ++q) {
            sum = sum + turned(v[q], p.roots + 2 * angle);
            angle += angle + r < p.radix ? r : r - p.radix;
          }
          at[r * p.done] = sum;
        }
      }
    }
  }

  Index length_, scratch_ = 0;
  int count_ = 0;
  Pass passes_[kMostPasses];
  Workspace tables_;
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
