// Partial sums of many blocks, added up in an order fixed by their number.
#pragma once

#include <cstdint>

#include "cuda/device.hpp"

namespace stapes::cuda {

// out[i] = sum over j < count of partials[j * size + i]. count 0: zeros.
void sum_partials(const float* partials, std::int64_t count, float* out, std::int64_t size, Stream stream);

}  // namespace stapes::cuda
