#include "core/check.hpp"
#include "core/dispatch.hpp"
#include "ops/ops.hpp"

namespace stapes::ops {
namespace {

// What only the CPU can tell without waiting for a device: the values of the targets.
template <class Id>
void check_ids(const Check& check, const Tensor& target, std::int64_t classes, std::int64_t ignore_index) {
  const Id* ids = static_cast<const Id*>(target.data);
  for (std::int64_t i = 0; i < target.numel(); ++i) {
    check.require((ids[i] >= 0 && ids[i] < classes) || ids[i] == ignore_index, "target must be in [0, ", classes,
                  ") or ignore_index (", ignore_index, "), got target[", i, "] = ", ids[i]);
  }
}

template <class T>
void check_probabilities(const Check& check, const Tensor& target) {
  const T* p = static_cast<const T*>(target.data);
  const std::int64_t classes = target.shape[1];
  for (std::int64_t i = 0; i < target.numel(); ++i) {
    check.require(p[i] == p[i], "target must not be NaN, got NaN at target[", i / classes, ", ", i % classes, "]");
  }
}

void check_values(const Check& check, const Tensor& target, std::int64_t classes, std::int64_t ignore_index) {
  switch (target.dtype) {
    case DType::kInt32: return check_ids<std::int32_t>(check, target, classes, ignore_index);
    case DType::kInt64: return check_ids<std::int64_t>(check, target, classes, ignore_index);
    case DType::kFloat64: return check_probabilities<double>(check, target);
    default: return check_probabilities<float>(check, target);
  }
}

}  // namespace

void cross_entropy_fwd(const Tensor& logits, const Tensor& target, const std::optional<Tensor>& weight,
                       double label_smoothing, std::int64_t ignore_index, const Scalar<double>& grad_scale,
                       const Tensor& loss, const Tensor& dlogits) {
  Check check("cross_entropy_fwd", {in("logits", logits), in("target", target), in("weight", weight), out("loss", loss),
                                    out("saved", dlogits)});
  const DType wide = wide_of(logits.dtype);
  check.computes("logits", logits);
  check.ndim("logits", logits, 2, "(N, classes)");
  const std::int64_t rows = logits.shape[0], classes = logits.shape[1];
  check.require(classes > 0, "logits must have at least 1 class");
  if (target.shape.ndim() == 1) {
    check.labels("target", target);
    check.shape("target", target, {rows});
  } else {
    check.dtype("target", target, logits.dtype);
    check.shape("target", target, logits.shape);
    check.require(ignore_index < 0, "ignore_index is for class ids, got ", ignore_index, " with probabilities");
  }
  if (weight) {
    check.dtype("weight", *weight, wide);
    check.shape("weight", *weight, {classes});
  }
  check.require(label_smoothing >= 0 && label_smoothing <= 1, "label_smoothing must be in [0, 1], got ",
                label_smoothing);
  check.dtype("loss", loss, wide);
  check.shape("loss", loss, {});
  check.matches("saved", dlogits, logits, logits.shape);
  if (target.device.is_cpu()) check_values(check, target, classes, ignore_index);
  run<cpu::cross_entropy_fwd, cuda::cross_entropy_fwd>(
      "cross_entropy_fwd", logits,
      CrossEntropyFwdArgs{logits.data, target.data, weight ? weight->data : nullptr, loss.data, dlogits.data, rows,
                          classes, label_smoothing, ignore_index, check.number("grad_scale", grad_scale, logits),
                          logits.dtype, target.dtype});
}

void cross_entropy_bwd(const Tensor& saved, const Scalar<double>& scale, const Tensor& dlogits) {
  Check check("cross_entropy_bwd", {in("saved", saved), out("dlogits", dlogits)});
  check.computes("saved", saved);
  check.matches("dlogits", dlogits, saved, saved.shape);
  run<cpu::cross_entropy_bwd, cuda::cross_entropy_bwd>(
      "cross_entropy_bwd", saved,
      CrossEntropyBwdArgs{saved.data, dlogits.data, saved.numel(), check.number("scale", scale, saved), saved.dtype});
}

}  // namespace stapes::ops
