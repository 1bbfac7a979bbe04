// log_mel
//   frame t of a clip: s[m] = the clip at t * hop_length + offset + m, m < win_length; beyond the ends zeros, or the
//     clip reflected. With remove_mean s loses its mean; then s[m] loses preemphasis * s[m - 1], s[0] that of itself
//   X = FFT of n_fft points of s * window; energy[band] = sum over k of weights[k][band] * |X[bins[band][0] + k]|^2
//   y = 10 log10 (decibels) or ln of max(energy, floor); NaN stays
// Layout: x (N, samples), y (N, frames, bands), weights (width, bands) float32; window (win_length), roots (n_fft,
//   2) of exp(-2 pi i k / n_fft) float64; bins (bands, 2) int32, begin and end of each filter.
// Work: a block takes 8, 4, 2 or 1 frames of a clip, so many threads each that a pass of radix 4 is about one
//   butterfly a thread. Frames of even n_fft are transformed as half as many complex numbers, two samples each. The
//   frames stay in shared memory from the samples to the bands: two buffers of complex numbers, up to 64 KB.
// Launch bounds: 256 threads, 2 blocks.
// Numerics: double until the energies: in float32 a pure tone's own rounding is 2e-3 dB in bands 80 dB below it.
//   Sums in a fixed order; the same bits on every run. Overwrites.
// Source: csrc/cuda/fft.cuh; stapes.audio.LogMel names those of the features.
// Measured: not measured.
#include "cuda/dtype.cuh"
#include "cuda/fft.cuh"
#include "ops/kernels.hpp"

namespace stapes::cuda {
namespace {

constexpr int kThreads = 256, kMostFrames = 8;

struct Plan {
  int length, together;  // complex numbers of a frame; frames of a block

  explicit Plan(std::int64_t n_fft) : length(static_cast<int>(n_fft % 2 == 0 ? n_fft / 2 : n_fft)), together(1) {
    while (together < kMostFrames && together * length < 4 * kThreads) together *= 2;
  }
  std::size_t shared_bytes() const {
    return 2 * sizeof(double2) * static_cast<std::size_t>(together) * static_cast<std::size_t>(length);
  }
};

// A clip and what lies beyond its ends.
struct Clip {
  const float* samples;
  std::int64_t count;
  FramePadding padding;

  __device__ double operator[](std::int64_t i) const {
    if (padding == FramePadding::kConstant && (i < 0 || i >= count)) return 0.0;
    if (i < 0) i = -i;
    if (i >= count) i = 2 * (count - 1) - i;
    return static_cast<double>(samples[i]);
  }
};

// The mean of a frame, or 0, to every lane of the warp.
__device__ __forceinline__ double frame_mean(const LogMelArgs& a, const Clip& clip, std::int64_t first) {
  double sum = 0.0;
  for (std::int64_t m = threadIdx.x % 32; m < a.win_length; m += 32) sum += clip[first + m];
  return warp_reduce(sum, Sum{}) / static_cast<double>(a.win_length);
}

// Sample m of a frame as it enters the transform; zeros after the window.
__device__ __forceinline__ double windowed(const LogMelArgs& a, const Clip& clip, std::int64_t first, std::int64_t m,
                                           double mean) {
  if (m >= a.win_length) return 0.0;
  double s = clip[first + m] - mean;
  if (a.preemphasis != 0) s -= a.preemphasis * (m > 0 ? clip[first + m - 1] - mean : s);
  return s * static_cast<const double*>(a.window)[m];
}

// |X[k]|^2, from the transform Z of the samples or, for even n_fft, of their pairs.
__device__ __forceinline__ double power_of(const double2* Z, int length, bool pairs, const Roots& roots, int k) {
  double2 X = Z[k < length ? k : 0];
  if (pairs) {
    const double2 mirror = Z[k > 0 ? length - k : 0];
    const double2 even = make_double2(0.5 * (X.x + mirror.x), 0.5 * (X.y - mirror.y));
    const double2 odd = make_double2(0.5 * (X.y + mirror.y), 0.5 * (mirror.x - X.x));
    X = even + roots[k] * odd;
  }
  return X.x * X.x + X.y * X.y;
}

__device__ __forceinline__ float log_energy(const LogMelArgs& a, const double* power, int bins, std::int64_t band) {
  const auto* range = static_cast<const std::int32_t*>(a.bins) + 2 * band;
  const int begin = min(max(range[0], 0), bins);
  const auto end = static_cast<int>(min(std::int64_t{min(range[1], bins)}, range[0] + a.width));
  const float* weight = static_cast<const float*>(a.weights) + (std::int64_t{begin} - range[0]) * a.bands + band;
  double energy = 0.0;
  for (int k = begin; k < end; ++k, weight += a.bands) energy += static_cast<double>(*weight) * power[k];
  const auto rounded = static_cast<float>(energy < a.floor ? a.floor : energy);
  return a.decibels ? 10.0f * log10f(rounded) : logf(rounded);
}

__global__ void __launch_bounds__(kThreads, 2) log_mel_kernel(LogMelArgs a, Plan plan) {
  STAPES_DYN_SHARED(double2, frames);
  const auto n_fft = static_cast<int>(a.n_fft), bins = n_fft / 2 + 1;
  const bool pairs = n_fft % 2 == 0;
  const Roots roots{static_cast<const double*>(a.roots), n_fft, 1};
  const int lanes = kThreads / plan.together, lane = static_cast<int>(threadIdx.x) % lanes;
  const int frame = static_cast<int>(threadIdx.x) / lanes;
  double2 *const buffer = frames + frame * plan.length, *const other = buffer + plan.together * plan.length;

  const std::int64_t blocks = ceil_div<std::int64_t>(a.frames, plan.together), tiles = a.N * blocks;
  for (std::int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const Clip clip{static_cast<const float*>(a.x) + tile / blocks * a.samples, a.samples, a.padding};
    const std::int64_t t = tile % blocks * plan.together + frame, first = t * a.hop_length + a.offset;
    const bool there = t < a.frames;
    const double mean = a.remove_mean && there ? frame_mean(a, clip, first) : 0.0;
    for (int i = lane; i < plan.length; i += lanes) {
      const int m = pairs ? 2 * i : i;
      const double x = there ? windowed(a, clip, first, m, mean) : 0.0;
      buffer[i] = make_double2(x, there && pairs ? windowed(a, clip, first, m + 1, mean) : 0.0);
    }
    __syncthreads();
    const Roots of_length{roots.table, plan.length, pairs ? 2 : 1};
    const double2* Z = fft(buffer, other, of_length, lane, lanes);
    auto* power = reinterpret_cast<double*>(Z == buffer ? other : buffer);
    for (int k = lane; k < bins; k += lanes) power[k] = power_of(Z, plan.length, pairs, roots, k);
    __syncthreads();
    float* y = static_cast<float*>(a.y) + (tile / blocks * a.frames + t) * a.bands;
    for (std::int64_t band = lane; band < a.bands && there; band += lanes) y[band] = log_energy(a, power, bins, band);
    __syncthreads();  // the next frames overwrite `power`
  }
}

}  // namespace

void log_mel(const LogMelArgs& a, Stream stream) {
  const Plan plan(a.n_fft);
  const std::int64_t tiles = a.N * ceil_div<std::int64_t>(a.frames, plan.together);
  const auto blocks = static_cast<unsigned>(tiles < 0x7fffffff ? tiles : 0x7fffffff);
  launch(log_mel_kernel, blocks, kThreads, plan.shared_bytes(), stream, a, plan);
}

}  // namespace stapes::cuda
