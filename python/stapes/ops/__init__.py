"""Operators over NumPy (CPU) and CuPy (CUDA) arrays: activations NHWC, weights KRSC.

Every function takes ``out=`` and is deterministic bit for bit, whatever the number of threads.
"""

from stapes.ops.activation import relu_bwd, relu_fwd
from stapes.ops.loss import cross_entropy_bwd, cross_entropy_fwd
from stapes.ops.norm import batch_norm2d_bwd, batch_norm2d_fwd

__all__ = [
    "batch_norm2d_bwd",
    "batch_norm2d_fwd",
    "cross_entropy_bwd",
    "cross_entropy_fwd",
    "relu_bwd",
    "relu_fwd",
]
