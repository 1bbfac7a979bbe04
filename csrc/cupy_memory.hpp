// Scratch memory of CUDA's kernels from CuPy's pool.
#pragma once

namespace stapes {

// From now on cuda::Workspace takes memory by cupy.cuda.alloc, which asks the allocator that is current in CuPy. CuPy
// is imported when the first kernel needs scratch memory.
void use_cupy_memory();

}  // namespace stapes
