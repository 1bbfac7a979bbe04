#include <limits>

#include "core/check.hpp"
#include "core/dispatch.hpp"
#include "ops/ops.hpp"

namespace stapes::ops {
namespace {

// CUDA's transform fits into 64 KB of shared memory, which every device has.
constexpr std::int64_t kMaxTransform = 2048;

FramePadding padding_of(const Check& check, const std::string& name) {
  if (name == "none") return FramePadding::kNone;
  if (name == "constant") return FramePadding::kConstant;
  check.require(name == "reflect", R"(padding must be "none", "constant" or "reflect", got ")", name, '"');
  return FramePadding::kReflect;
}

// Frames read what `padding` makes of the samples from `offset` on; reflection goes once around each end.
void check_frames(const Check& check, const LogMelArgs& a) {
  constexpr std::int64_t kEnd = std::int64_t{1} << 62;  // so that no sample's number overflows
  check.require(a.frames <= kEnd / a.hop_length, "frames must lie before sample 2^62, got ", a.frames, ", ",
                a.hop_length, " samples apart");
  const std::int64_t end = a.offset + (a.frames - 1) * a.hop_length + a.win_length;
  const std::int64_t around = a.padding == FramePadding::kReflect ? a.samples - 1 : 0;
  if (a.padding == FramePadding::kConstant || a.frames == 0 || a.N == 0) return;
  check.require(a.offset >= -around && end <= a.samples + around, "frames must lie in the samples, got samples ",
                a.offset, " to ", end, " of ", a.samples);
}

}  // namespace

void log_mel(const Tensor& x, const Tensor& window, const Tensor& roots, const Tensor& bins, const Tensor& weights,
             const Tensor& y, std::int64_t hop_length, std::int64_t offset, const std::string& padding,
             bool remove_mean, double preemphasis, double floor, bool decibels) {
  const Check check("log_mel", {in("x", x), in("window", window), in("roots", roots), in("bins", bins),
                                in("weights", weights), out("y", y)});
  const bool cpu = x.device.is_cpu();
  if (cpu) {
    check.computes("x", x);
  } else {
    check.dtype("x", x, DType::kFloat32);
  }
  check.dtype("weights", weights, DType::kFloat32);
  check.dtype("y", y, DType::kFloat32);
  check.dtype("window", window, DType::kFloat64);
  check.dtype("roots", roots, DType::kFloat64);
  check.dtype("bins", bins, DType::kInt32);
  check.ndim("x", x, 2, "(N, samples)");
  check.ndim("window", window, 1, "(win_length,)");
  check.ndim("roots", roots, 2, "(n_fft, 2)");
  check.ndim("weights", weights, 2, "(width, bands)");
  check.ndim("y", y, 3, "(N, frames, bands)");
  const std::int64_t n_fft = roots.shape[0], bands = weights.shape[1];
  const std::int64_t length = n_fft % 2 == 0 ? n_fft / 2 : n_fft;
  check.shape("roots", roots, {n_fft, 2});
  check.shape("bins", bins, {bands, 2});
  check.shape("y", y, {x.shape[0], y.shape[1], bands});
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  check.require(n_fft >= 2 && n_fft <= kMost, "n_fft must be 2 to 2^31 - 1, got ", n_fft);
  check.require(cpu || length <= kMaxTransform, "n_fft must be 2 to ", 2 * kMaxTransform, ", or odd and at most ",
                kMaxTransform, ", on CUDA, got ", n_fft);
  check.require(window.shape[0] >= 1 && window.shape[0] <= n_fft, "the window must have 1 to n_fft (", n_fft,
                ") samples, got ", window.shape[0]);
  check.require(hop_length >= 1 && hop_length <= kMost, "hop_length must be 1 to 2^31 - 1, got ", hop_length);
  check.require(offset >= -kMost && offset <= kMost, "offset must be between -2^31 and 2^31, got ", offset);
  const LogMelArgs args{x.data,          window.data, roots.data,       bins.data,
                        weights.data,    y.data,      x.shape[0],       x.shape[1],
                        y.shape[1],      bands,       weights.shape[0], n_fft,
                        window.shape[0], hop_length,  offset,           padding_of(check, padding),
                        remove_mean,     decibels,    preemphasis,      floor,
                        x.dtype};
  check_frames(check, args);
  if (y.numel() == 0) return;
  run<cpu::log_mel, cuda::log_mel>("log_mel", x, args);
}

}  // namespace stapes::ops
