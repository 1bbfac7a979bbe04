// log_mel
//   frame t of a clip: s[m] = the clip at t * hop_length + offset + m, m < win_length; beyond the ends zeros, or the
//     clip reflected. With remove_mean s loses its mean; then s[m] loses preemphasis * s[m - 1], s[0] that of itself
//   X = FFT of n_fft points of s * window; energy[band] = sum over k of weights[k][band] * |X[bins[band][0] + k]|^2
//   y = 10 log10 (decibels) or ln of max(energy, floor); NaN stays
// Layout: x (N, samples) float32 or float64, y (N, frames, bands), weights (width, bands) float32; window (win_length),
//   roots (n_fft, 2) of exp(-2 pi i k / n_fft) float64; bins (bands, 2) int32, begin and end of each filter.
// Work: kDoubles frames at a time, one in each lane, from the samples to the logarithms: so many that they stay in the
//   cache. Frames of even n_fft are transformed as half as many complex numbers, two samples each. Groups of frames,
//   whichever clips they are of, are shared out to threads.
// Numerics: double until the result is written. A frame gives the same bits whatever its neighbours. Overwrites.
// Source: csrc/cpu/fft.hpp; stapes.audio.LogMel names those of the features. The transform of real numbers: W. Press
//   et al., "Numerical Recipes", 2007, section 12.3.
#include <utility>

#include "core/dispatch.hpp"
#include "cpu/columns.hpp"
#include "cpu/fft.hpp"
#include "cpu/log.hpp"
#include "ops/kernels.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

constexpr Index kGroups = 128;  // of a task: a few seconds of sound, which pay for waking a thread

// Lane l of vector i changes places with lane i of vector l.
template <int S, int... l>
[[gnu::always_inline]] inline void exchange(Vec<double>& a, Vec<double>& b, std::integer_sequence<int, l...>) {
  const Vec<double> low = __builtin_shufflevector(a, b, ((l & S) != 0 ? kDoubles + l - S : l)...);
  b = __builtin_shufflevector(a, b, ((l & S) != 0 ? kDoubles + l : l + S)...);
  a = low;
}

template <int S = 1>
[[gnu::always_inline]] inline void transpose(Vec<double> (&v)[kDoubles]) {
  if constexpr (S < kDoubles) {
    for (int i = 0; i < kDoubles; ++i) {
      if ((i & S) == 0) exchange<S>(v[i], v[i + S], std::make_integer_sequence<int, kDoubles>{});
    }
    transpose<2 * S>(v);
  }
}

struct Band {
  Index first, count;
  const double* weights;
};

// What the frames of a call have in common.
class Tables {
 public:
  explicit Tables(const LogMelArgs& args)
      : a(args),
        pairs(a.n_fft % 2 == 0),
        length(pairs ? a.n_fft / 2 : a.n_fft),
        fft(length, static_cast<const double*>(a.roots), pairs ? 2 : 1),
        slots_(workspace_of<std::uint32_t>(2 * length)),
        bands_(workspace_of<Band>(a.bands)),
        weights_(workspace_of<double>(find_bands())) {
    auto* slot = slots_.as<std::uint32_t>();
    fft.places(slot + length);  // read before they are overwritten
    for (Index i = 0; i < length; ++i) {
      const std::uint32_t at = 2 * slot[length + i];
      slot[pairs ? 2 * i : i] = at;
      slot[pairs ? 2 * i + 1 : length + i] = at + 1;
    }
    copy_weights();
  }

  const std::uint32_t* slots() const { return slots_.as<std::uint32_t>(); }
  const Band& band(Index b) const { return bands_.as<Band>()[b]; }

  const LogMelArgs& a;
  bool pairs;
  Index length;  // complex numbers of a frame
  Fft fft;

 private:
  // Cuts the filters off at the ends of the spectrum; the number of all their weights.
  Index find_bands() {
    const Index most = a.n_fft / 2 + 1;
    Index count = 0;
    for (Index b = 0; b < a.bands; ++b) {
      const std::int32_t* range = range_of(b);
      const Index first = clamp(range[0], 0, most), end = least(least(range[1], most), range[0] + a.width);
      bands_.as<Band>()[b] = {first, end > first ? end - first : 0, nullptr};
      count += bands_.as<Band>()[b].count;
    }
    return count;
  }

  void copy_weights() {
    const double scale = pairs ? 0.25 : 1.0;  // see spectrum_of_pairs
    double* to = weights_.as<double>();
    for (Index b = 0; b < a.bands; ++b) {
      Band& band = bands_.as<Band>()[b];
      band.weights = to;
      const auto* weights = static_cast<const float*>(a.weights);
      const Index row = band.first - range_of(b)[0];
      for (Index k = 0; k < band.count; ++k) *to++ = scale * static_cast<double>(weights[(row + k) * a.bands + b]);
    }
  }

  const std::int32_t* range_of(Index band) const { return static_cast<const std::int32_t*>(a.bins) + 2 * band; }

  Workspace slots_;  // 2 * length: where the samples go, and then the zeros
  Workspace bands_, weights_;
};

// Memory of a thread.
template <class T>
struct Scratch {
  Complex *z, *by_definition;
  Vec<double>* power;
  T* samples;

  static Index bytes(const Tables& t) {
    const Index vectors = 2 * t.length + 2 * t.fft.scratch() + t.a.n_fft / 2 + 1;
    return round_up(vectors * Index{sizeof(Vec<double>)} + kDoubles * row(t) * Index{sizeof(T)}, 64);
  }
  static Index row(const Tables& t) { return round_up(t.a.win_length, kDoubles); }

  Scratch(const Tables& t, char* memory)
      : z(reinterpret_cast<Complex*>(memory)),
        by_definition(z + t.length),
        power(reinterpret_cast<Vec<double>*>(by_definition + t.fft.scratch())),
        samples(reinterpret_cast<T*>(power + t.a.n_fft / 2 + 1)) {}
};

// The samples of a frame, and as many more as fill vectors; copied where they are not all in the clip.
template <class T>
const T* samples_of(const LogMelArgs& a, Index frame, T* copy) {
  const T* clip = static_cast<const T*>(a.x) + frame / a.frames * a.samples;
  const Index first = frame % a.frames * a.hop_length + a.offset;
  if (first >= 0 && first + round_up(a.win_length, kDoubles) <= a.samples) return clip + first;
  for (Index m = 0; m < a.win_length; ++m) {
    const Index i = first + m;
    if (a.padding == FramePadding::kConstant) {
      copy[m] = i >= 0 && i < a.samples ? clip[i] : T(0);
    } else {
      copy[m] = clip[i < 0 ? -i : i < a.samples ? i : 2 * (a.samples - 1) - i];
    }
  }
  return copy;
}

template <class T>
Vec<double> means(const T* const (&rows)[kDoubles], Index count) {
  Vec<double> sums[kDoubles] = {}, mean{};
  Index m = 0;
  for (; m + kDoubles <= count; m += kDoubles) {
    for (int l = 0; l < kDoubles; ++l) sums[l] += load_double(rows[l] + m);
  }
  transpose(sums);
  for (const Vec<double>& sum : sums) mean += sum;
  for (; m < count; ++m) {
    for (int l = 0; l < kDoubles; ++l) mean[l] += static_cast<double>(rows[l][m]);
  }
  return mean / static_cast<double>(count);
}

// Writes the frames as the transform takes them.
template <class T>
void read_frames(const Tables& t, const T* const (&rows)[kDoubles], Vec<double>* z) {
  const LogMelArgs& a = t.a;
  const auto* window = static_cast<const double*>(a.window);
  const std::uint32_t* slots = t.slots();
  const Vec<double> mean = a.remove_mean ? means(rows, a.win_length) : Vec<double>{};
  Vec<double> before{};
  for (Index m = 0; m < a.win_length; m += kDoubles) {
    Vec<double> s[kDoubles];
    for (int l = 0; l < kDoubles; ++l) s[l] = load_double(rows[l] + m);
    transpose(s);
    if (m == 0) before = s[0] - mean;
    for (int i = 0; i < kDoubles && m + i < a.win_length; ++i) {
      const Vec<double> now = s[i] - mean;
      z[slots[m + i]] = (now - before * a.preemphasis) * window[m + i];
      before = now;
    }
  }
  for (Index m = a.win_length; m < 2 * t.length; ++m) z[slots[m]] = Vec<double>{};
}

[[gnu::always_inline]] inline Vec<double> power_of(const Complex& X) { return X.re * X.re + X.im * X.im; }

// 4 |X[k]|^2 out of the transform Z of pairs: X[k] = even + w^k odd, X[length - k] = conj(even - w^k odd).
void spectrum_of_pairs(const Tables& t, const Complex* Z, Vec<double>* power) {
  const auto* roots = static_cast<const double*>(t.a.roots);
  for (Index k = 0; k <= t.length / 2; ++k) {
    const Complex a = Z[k], b = Z[k > 0 ? t.length - k : 0];
    const Complex even = {a.re + b.re, a.im - b.im};
    const Complex odd = turned({a.im + b.im, b.re - a.re}, roots + 2 * k);
    power[k] = power_of(even + odd);
    power[t.length - k] = power_of(even - odd);
  }
}

void spectrum(const Tables& t, const Complex* Z, Vec<double>* power) {
  for (Index k = 0; k <= t.length / 2; ++k) power[k] = power_of(Z[k]);
}

Vec<double> energy_of(const Band& band, const Vec<double>* power) {
  power += band.first;
  Vec<double> even{}, odd{};  // two sums: one would wait for itself
  Index k = 0;
  for (; k + 2 <= band.count; k += 2) {
    even += power[k] * band.weights[k];
    odd += power[k + 1] * band.weights[k + 1];
  }
  if (k < band.count) even += power[k] * band.weights[k];
  return even + odd;
}

[[gnu::always_inline]] inline void store_float(float* p, Vec<double> v) {
  for (int i = 0; i < kDoubles; ++i) p[i] = static_cast<float>(v[i]);
}

void write_bands(const Tables& t, const Vec<double>* power, Index frame, Index frames) {
  const Index bands = t.a.bands;
  const double unit = t.a.decibels ? 4.3429448190325182765 : 1.0;  // 10 / ln 10
  float* y = static_cast<float*>(t.a.y) + frame * bands;
  for (Index b = 0; b < bands; b += kDoubles) {
    Vec<double> v[kDoubles];
    for (int i = 0; i < kDoubles; ++i) v[i] = energy_of(t.band(least(b + i, bands - 1)), power);
    for (Vec<double>& e : v) e = log_of(e < t.a.floor ? splat(t.a.floor) : e) * unit;
    transpose(v);
    for (Index l = 0; l < frames; ++l) {
      if (b + kDoubles <= bands) {
        store_float(y + l * bands + b, v[l]);
      } else {
        for (Index i = 0; b + i < bands; ++i) y[l * bands + b + i] = static_cast<float>(v[l][i]);
      }
    }
  }
}

// `frames` frames from one of all clips' on.
template <class T>
void group(const Tables& t, Scratch<T> scratch, Index frame, Index frames) {
  const T* rows[kDoubles];
  for (Index l = 0; l < kDoubles; ++l) {  // lanes beyond the last frame repeat it
    rows[l] = samples_of(t.a, frame + least(l, frames - 1), scratch.samples + l * Scratch<T>::row(t));
  }
  read_frames(t, rows, &scratch.z->re);
  t.fft.run(scratch.z, scratch.by_definition);
  if (t.pairs) {
    spectrum_of_pairs(t, scratch.z, scratch.power);
  } else {
    spectrum(t, scratch.z, scratch.power);
  }
  write_bands(t, scratch.power, frame, frames);
}

void fwd(const LogMelArgs& a) {
  const Tables tables(a);
  with_dtype(a.dtype, [&]<class T>(T) {
    const Index frames = a.N * a.frames, tasks = ceil_div(frames, kGroups * kDoubles);
    const int threads = static_cast<int>(least(num_threads(), tasks));
    const Index bytes = Scratch<T>::bytes(tables);
    const Workspace memory = workspace_of<char>(threads * bytes);
    parallel_for(tasks, threads, [&](Index task, int thread) {
      const Scratch<T> scratch(tables, memory.as<char>() + thread * bytes);
      const Range r = part(ceil_div(frames, kDoubles), tasks, task);
      for (Index g = r.begin; g < r.end; ++g) {
        group(tables, scratch, g * kDoubles, least(kDoubles, frames - g * kDoubles));
      }
    });
  });
}

const Register kFwd{log_mel, kIsa, fwd};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
