#include <algorithm>
#include <vector>

#include "core/check.hpp"
#include "core/dispatch.hpp"
#include "ops/ops.hpp"

namespace stapes::ops {
namespace {

struct List {
  const char* name;
  const std::vector<Tensor>& tensors;
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
    const bool ok = t.dtype == DType::kFloat32 || (t.device.is_cpu() && t.dtype == DType::kFloat64);
    require_type(ok, list.name, '[', i, "] must be ", t.device.is_cpu() ? "float32 or float64" : "float32", " on ",
                 to_string(t.device), ", got ", name_of(t.dtype));
    require_type(t.dtype == first.dtype, list.name, '[', i, "] must be ", name_of(first.dtype), " as params[0], got ",
                 name_of(t.dtype));
    require(t.shape == p.shape, list.name, '[', i, "] must have the shape ", to_string(p.shape), " of params[", i,
            "], got ", to_string(t.shape));
    require(!list.written || t.writable, list.name, '[', i, "] must be writable, got a read-only array");
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
};

// `first` and `second` may be empty.
std::vector<StepTensor> step_tensors(const std::vector<Tensor>& params, const std::vector<Tensor>& grads,
                                     const std::vector<Tensor>& first, const std::vector<Tensor>& second) {
  std::vector<StepTensor> tensors;
  tensors.reserve(params.size());
  for (std::size_t i = 0; i < params.size(); ++i) {
    tensors.push_back({params[i].data, grads[i].data, first.empty() ? nullptr : first[i].data,
                       second.empty() ? nullptr : second[i].data, params[i].numel()});
  }
  return tensors;
}

}  // namespace

void sgd_step(const std::vector<Tensor>& params, const std::vector<Tensor>& grads, const std::vector<Tensor>& velocity,
              double lr, double momentum, bool nesterov, double weight_decay) {
  std::vector<List> lists{{"params", params, true}, {"grads", grads, false}};
  if (momentum != 0) lists.push_back({"velocity", velocity, true});
  const StepCheck check("sgd_step", std::move(lists));
  check.require(lr >= 0, "lr must be at least 0, got ", lr);
  check.require(momentum >= 0, "momentum must be at least 0, got ", momentum);
  check.require(weight_decay >= 0, "weight_decay must be at least 0, got ", weight_decay);
  check.require(!nesterov || momentum > 0, "nesterov needs momentum above 0, got ", momentum);
  if (params.empty()) return;
  const auto tensors = step_tensors(params, grads, momentum != 0 ? velocity : std::vector<Tensor>(), {});
  run<cpu::sgd_step>("sgd_step", params.front(),
                     SgdStepArgs{tensors.data(), static_cast<std::int64_t>(tensors.size()), lr, momentum, nesterov,
                                 weight_decay, params.front().dtype});
}

void adam_step(const std::vector<Tensor>& params, const std::vector<Tensor>& grads, const std::vector<Tensor>& m,
               const std::vector<Tensor>& v, double step, double lr, double beta1, double beta2, double eps,
               double weight_decay, bool decoupled) {
  const StepCheck check("adam_step",
                        {{"params", params, true}, {"grads", grads, false}, {"m", m, true}, {"v", v, true}});
  check.require(step >= 1, "step must be at least 1, got ", step);
  check.require(lr >= 0, "lr must be at least 0, got ", lr);
  check.require(beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1, "betas must be in [0, 1), got (", beta1, ", ",
                beta2, ")");
  check.require(eps >= 0, "eps must be at least 0, got ", eps);
  check.require(weight_decay >= 0, "weight_decay must be at least 0, got ", weight_decay);
  if (params.empty()) return;
  const auto tensors = step_tensors(params, grads, m, v);
  run<cpu::adam_step>("adam_step", params.front(),
                      AdamStepArgs{tensors.data(), static_cast<std::int64_t>(tensors.size()), step, lr, beta1, beta2,
                                   eps, weight_decay, decoupled, params.front().dtype});
}

}  // namespace stapes::ops
