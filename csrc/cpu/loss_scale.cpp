// find_inf: found_inf = 1 where any gradient is infinite or NaN, else 0
// update_scale: after a step that was done, ++step, ++good_steps, and where these are growth_interval many
//   scale *= growth_factor (unless it would be infinite) and good_steps = 0;
//   after one that was not, since found_inf is not 0, scale *= backoff_factor and good_steps = 0
// Work: chunks of kGrain elements of one tensor after another in parallel.
// Numerics: exact, as long as the factors are powers of two.
#include <cmath>

#include "core/dispatch.hpp"
#include "cpu/parallel.hpp"
#include "cpu/workspace.hpp"
#include "ops/kernels.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

using std::int64_t;

template <class T>
bool any_inf(const T* x, int64_t n) {
  int found = 0;
  for (int64_t i = 0; i < n; ++i) found |= static_cast<int>(x[i] - x[i] != T(0));  // NaN for infinity and NaN
  return found != 0;
}

void find(const FindInfArgs& a) {
  int64_t largest = 0;
  for (int64_t t = 0; t < a.count; ++t) largest = a.tensors[t].size > largest ? a.tensors[t].size : largest;
  const Workspace scratch = workspace_of<bool>(ceil_div(largest, kGrain));
  bool* found_in = scratch.as<bool>();
  bool found = false;
  with_dtype(a.dtype, [&]<class T>(T) {
    for (int64_t t = 0; t < a.count; ++t) {
      const T* grad = static_cast<const T*>(a.tensors[t].grad);
      const int64_t size = a.tensors[t].size, chunks = ceil_div(size, kGrain);
      parallel_for(chunks, [=](int64_t i) {
        const Range r = part(size, chunks, i);
        found_in[i] = any_inf(grad + r.begin, r.end - r.begin);
      });
      for (int64_t i = 0; i < chunks; ++i) found = found || found_in[i];
    }
  });
  *a.found_inf = found ? 1 : 0;
}

void update(const UpdateScaleArgs& a) {
  if (*a.found_inf != 0) {
    *a.scale *= static_cast<float>(a.backoff_factor);
    *a.good_steps = 0;
    return;
  }
  if (a.step != nullptr) ++*a.step;
  if (++*a.good_steps < a.growth_interval) return;
  *a.good_steps = 0;
  const float grown = *a.scale * static_cast<float>(a.growth_factor);
  if (std::isfinite(grown)) *a.scale = grown;
}

const Register kFind{find_inf, kIsa, find};
const Register kUpdate{update_scale, kIsa, update};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
