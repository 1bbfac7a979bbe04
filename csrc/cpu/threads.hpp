// How many threads the CPU kernels use.
#pragma once

namespace stapes::cpu {

// At first OMP_NUM_THREADS, or else the processors this process may use. Always 1 in a process made by fork alone.
int num_threads();
void set_num_threads(int n);  // std::invalid_argument unless 1 <= n <= 1024

}  // namespace stapes::cpu
