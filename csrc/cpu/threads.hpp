// How many threads the CPU kernels use.
#pragma once

namespace stapes::cpu {

int num_threads();          // at first OMP_NUM_THREADS, or else the processors this process may use
void set_num_threads(int n);  // std::invalid_argument unless n >= 1

}  // namespace stapes::cpu
