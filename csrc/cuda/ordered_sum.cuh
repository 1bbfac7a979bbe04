// Sums of partial results, in an order that the sizes alone decide: how a split reduction ends without atomics.
#pragma once

#include <cstdint>

#include "cuda/device.hpp"

namespace stapes::cuda {

// out[i] = sum over j < count of partials[j * pitch + i], for i < size.
void ordered_sum(const float* partials, int count, std::int64_t pitch, std::int64_t size, float* out, Stream stream);

}  // namespace stapes::cuda
