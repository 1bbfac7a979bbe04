#include <vector>

#include "core/check.hpp"
#include "core/dispatch.hpp"
#include "ops/ops.hpp"

namespace stapes::ops {
namespace {

void one_of(const Check& check, const char* name, const Tensor& t, DType dtype) {
  check.dtype(name, t, dtype);
  check.require(t.numel() == 1, name, " must have one element, got shape ", to_string(t.shape));
}

}  // namespace

void find_inf(const std::vector<Tensor>& grads, const Tensor& found_inf) {
  std::vector<Arg> args{out("found_inf", found_inf)};
  for (const Tensor& g : grads) args.push_back(in("grads", g));
  const Check check("find_inf", std::move(args));
  one_of(check, "found_inf", found_inf, DType::kInt32);
  std::vector<GradTensor> tensors;
  for (const Tensor& g : grads) {
    check.computes("grads", g);
    check.dtype("grads", g, grads.front().dtype);
    tensors.push_back({g.data, g.numel()});
  }
  run<cpu::find_inf, cuda::find_inf>(
      "find_inf", found_inf,
      FindInfArgs{tensors.data(), static_cast<std::int64_t>(tensors.size()), static_cast<std::int32_t*>(found_inf.data),
                  grads.empty() ? DType::kFloat32 : grads.front().dtype});
}

void update_scale(const Tensor& scale, const Tensor& good_steps, const Tensor& found_inf, const OptionalTensor& step,
                  double growth_factor, double backoff_factor, std::int64_t growth_interval) {
  const Check check("update_scale", {out("scale", scale), out("good_steps", good_steps), in("found_inf", found_inf),
                                     out("step", step)});
  one_of(check, "scale", scale, DType::kFloat32);
  one_of(check, "good_steps", good_steps, DType::kInt32);
  one_of(check, "found_inf", found_inf, DType::kInt32);
  if (step) one_of(check, "step", *step, DType::kInt64);
  check.require(growth_factor >= 1, "growth_factor must be at least 1, got ", growth_factor);
  check.require(backoff_factor > 0 && backoff_factor <= 1, "backoff_factor must be in (0, 1], got ", backoff_factor);
  check.require(growth_interval >= 1, "growth_interval must be at least 1, got ", growth_interval);
  run<cpu::update_scale, cuda::update_scale>(
      "update_scale", scale,
      UpdateScaleArgs{static_cast<float*>(scale.data), static_cast<std::int32_t*>(good_steps.data),
                      static_cast<const std::int32_t*>(found_inf.data),
                      step ? static_cast<std::int64_t*>(step->data) : nullptr, growth_factor, backoff_factor,
                      growth_interval});
}

}  // namespace stapes::ops
