#include <algorithm>
#include <vector>

#include "core/check.hpp"
#include "core/dispatch.hpp"
#include "ops/ops.hpp"

namespace stapes::ops {
namespace {

enum class Kind : std::uint8_t { kState, kGradient, kCopy };

struct List {
  const char* name;
  const std::vector<Tensor>& tensors;
  Kind kind;
  bool written;
};

// As Check, for lists of tensors: its comparison of every output with every array would cost more
// than the step where there are hundreds of them.
class StepCheck {
 public:
  StepCheck(const char* op, std::vector<List> lists) : op_(op), lists_(std::move(lists)) {
    for (const List& list : lists_) {
      require(list.tensors.size() == params().size(), list.name, " must have as many arrays as params (",
              params().size(), "), got ", list.tensors.size());
      for (std::size_t i = 0; i < params().size(); ++i) check_tensor(list, i);
    }
    check_overlap();
    for (const List& list : lists_) {
      for (const Tensor& t : list.tensors) lent_.add(t, list.written);
    }
  }

  // A number, or an array of one element beside the params; what can be read here is at least `least`.
  Number<double> number(const char* name, const Scalar<double>& scalar, double least) {
    const Number<double> n = resolve(op_, name, scalar, params().empty() ? Device{} : params().front().device);
    require(n.data != nullptr || n.value >= least, name, " must be at least ", least, ", got ", n.value);
    if (n.data != nullptr) lent_.add(*scalar.array, false);
    return n;
  }

  // The factor that the gradients carry.
  Number<double> grad_scale(const Scalar<double>& scalar) {
    const Number<double> n = number("grad_scale", scalar, 0);
    require(n.data != nullptr || n.value > 0, "grad_scale must be above 0, got ", n.value);
    return n;
  }

  // A flag on the device of the params, or null.
  const std::int32_t* flag(const char* name, const OptionalTensor& t) {
    if (!t) return nullptr;
    require_type(t->dtype == DType::kInt32, name, " must be int32, got ", name_of(t->dtype));
    require(t->numel() == 1, name, " must have one element, got shape ", to_string(t->shape));
    require_type(params().empty() || t->device == params().front().device, name, " must be on the device of params");
    lent_.add(*t, false);
    return static_cast<const std::int32_t*>(t->data);
  }

  template <class... Parts>
  void require(bool ok, const Parts&... rule) const {
    if (!ok) throw std::invalid_argument(cat(op_, ": ", rule...));
  }

 private:
  const std::vector<Tensor>& params() const { return lists_.front().tensors; }

  template <class... Parts>
  void require_type(bool ok, const Parts&... rule) const {
    if (!ok) throw TypeError(cat(op_, ": ", rule...));
  }

  void check_tensor(const List& list, std::size_t i) const {
    const Tensor &t = list.tensors[i], &p = params()[i], &first = params().front();
    require_type(t.device == first.device, list.name, '[', i, "] must be on ", to_string(first.device),
                 " as params[0], got ", to_string(t.device));
    check_dtype(list, i);
    require(t.shape == p.shape, list.name, '[', i, "] must have the shape ", to_string(p.shape), " of params[", i,
            "], got ", to_string(t.shape));
    require(!list.written || t.writable, list.name, '[', i, "] must be writable, got a read-only array");
  }

  // Params and state are wide. On CUDA gradients may be 16-bit too, and copies are.
  void check_dtype(const List& list, std::size_t i) const {
    const Tensor &t = list.tensors[i], &first = list.kind == Kind::kState ? params().front() : list.tensors.front();
    const bool cpu = t.device.is_cpu(), half = t.dtype == DType::kFloat16 || t.dtype == DType::kBFloat16;
    const bool wide = t.dtype == DType::kFloat32 || (cpu && t.dtype == DType::kFloat64);
    const bool ok = list.kind == Kind::kState ? wide : list.kind == Kind::kCopy ? half && !cpu : wide || (half && !cpu);
    const char* dtypes = list.kind == Kind::kCopy    ? "float16 or bfloat16"
                         : cpu                       ? "float32 or float64"
                         : list.kind == Kind::kState ? "float32"
                                                     : "float32, float16 or bfloat16";
    require_type(ok, list.name, '[', i, "] must be ", dtypes, " on ", to_string(t.device), ", got ", name_of(t.dtype));
    const Tensor& like = cpu ? params().front() : first;
    require_type(t.dtype == like.dtype, list.name, '[', i, "] must be ", name_of(like.dtype), " as ",
                 &like == &params().front() ? "params" : list.name, "[0], got ", name_of(t.dtype));
  }

  // What is written may overlap nothing else: in order of addresses, each array is held against the
  // furthest end before it.
  void check_overlap() const {
    struct Span {
      std::uintptr_t begin, end;
      const char* name;
      std::size_t index;
      bool written;
    };
    std::vector<Span> spans;
    for (const List& list : lists_) {
      for (std::size_t i = 0; i < list.tensors.size(); ++i) {
        const Tensor& t = list.tensors[i];
        const auto begin = reinterpret_cast<std::uintptr_t>(t.data);
        if (t.nbytes() > 0) spans.push_back({begin, begin + t.nbytes(), list.name, i, list.written});
      }
    }
    std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
    const Span *furthest = nullptr, *furthest_written = nullptr;
    for (const Span& s : spans) {
      const Span* before = s.written ? furthest : furthest_written;
      if (before != nullptr && s.begin < before->end) {
        require(false, s.name, '[', s.index, "] must not overlap ", before->name, '[', before->index, ']');
      }
      if (furthest == nullptr || s.end > furthest->end) furthest = &s;
      if (s.written && (furthest_written == nullptr || s.end > furthest_written->end)) furthest_written = &s;
    }
  }

  const char* op_;
  std::vector<List> lists_;
  Lent lent_;
};

// `first`, `second` and `copies` may be empty.
std::vector<StepTensor> step_tensors(const std::vector<Tensor>& params, const std::vector<Tensor>& grads,
                                     const std::vector<Tensor>& first, const std::vector<Tensor>& second,
                                     const std::vector<Tensor>& copies) {
  std::vector<StepTensor> tensors;
  tensors.reserve(params.size());
  for (std::size_t i = 0; i < params.size(); ++i) {
    tensors.push_back({params[i].data, grads[i].data, first.empty() ? nullptr : first[i].data,
                       second.empty() ? nullptr : second[i].data, copies.empty() ? nullptr : copies[i].data,
                       params[i].numel()});
  }
  return tensors;
}

DType dtype_of(const std::vector<Tensor>& tensors) { return tensors.empty() ? DType::kFloat32 : tensors.front().dtype; }

}  // namespace

void sgd_step(const std::vector<Tensor>& params, const std::vector<Tensor>& grads, const std::vector<Tensor>& velocity,
              const std::vector<Tensor>& copies, const Scalar<double>& lr, double momentum, bool nesterov,
              double weight_decay, const Scalar<double>& grad_scale, const OptionalTensor& found_inf) {
  std::vector<List> lists{{"params", params, Kind::kState, true}, {"grads", grads, Kind::kGradient, false}};
  if (momentum != 0) lists.push_back({"velocity", velocity, Kind::kState, true});
  if (!copies.empty()) lists.push_back({"copies", copies, Kind::kCopy, true});
  StepCheck check("sgd_step", std::move(lists));
  const Number<double> rate = check.number("lr", lr, 0), scale = check.grad_scale(grad_scale);
  const std::int32_t* skip = check.flag("found_inf", found_inf);
  check.require(momentum >= 0, "momentum must be at least 0, got ", momentum);
  check.require(weight_decay >= 0, "weight_decay must be at least 0, got ", weight_decay);
  check.require(!nesterov || momentum > 0, "nesterov needs momentum above 0, got ", momentum);
  if (params.empty()) return;
  const auto tensors = step_tensors(params, grads, momentum != 0 ? velocity : std::vector<Tensor>(), {}, copies);
  run<cpu::sgd_step, cuda::sgd_step>(
      "sgd_step", params.front(),
      SgdStepArgs{tensors.data(), static_cast<std::int64_t>(tensors.size()), rate, scale, skip, momentum, nesterov,
                  weight_decay, params.front().dtype, grads.front().dtype, dtype_of(copies)});
}

void adam_step(const std::vector<Tensor>& params, const std::vector<Tensor>& grads, const std::vector<Tensor>& m,
               const std::vector<Tensor>& v, const std::vector<Tensor>& copies, const Scalar<double>& step,
               const Scalar<double>& lr, double beta1, double beta2, double eps, double weight_decay, bool decoupled,
               const Scalar<double>& grad_scale, const OptionalTensor& found_inf) {
  std::vector<List> lists{{"params", params, Kind::kState, true},
                          {"grads", grads, Kind::kGradient, false},
                          {"m", m, Kind::kState, true},
                          {"v", v, Kind::kState, true}};
  if (!copies.empty()) lists.push_back({"copies", copies, Kind::kCopy, true});
  StepCheck check("adam_step", std::move(lists));
  const Number<double> count = check.number("step", step, 1), rate = check.number("lr", lr, 0);
  const Number<double> scale = check.grad_scale(grad_scale);
  const std::int32_t* skip = check.flag("found_inf", found_inf);
  check.require(beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1, "betas must be in [0, 1), got (", beta1, ", ",
                beta2, ")");
  check.require(eps >= 0, "eps must be at least 0, got ", eps);
  check.require(weight_decay >= 0, "weight_decay must be at least 0, got ", weight_decay);
  if (params.empty()) return;
  const auto tensors = step_tensors(params, grads, m, v, copies);
  run<cpu::adam_step, cuda::adam_step>(
      "adam_step", params.front(),
      AdamStepArgs{tensors.data(), static_cast<std::int64_t>(tensors.size()), count, rate, scale, skip, beta1, beta2,
                   eps, weight_decay, decoupled, params.front().dtype, grads.front().dtype, dtype_of(copies)});
}

}  // namespace stapes::ops
