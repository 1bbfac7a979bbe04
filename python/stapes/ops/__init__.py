"""Operators over NumPy (CPU) and CuPy (CUDA) arrays: activations NHWC, weights KRSC.

Every function takes ``out=`` and is deterministic bit for bit, whatever the number of threads.
"""

from stapes.ops.activation import relu_bwd, relu_fwd

__all__ = ["relu_bwd", "relu_fwd"]
