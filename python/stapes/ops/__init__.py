"""Operators over NumPy (CPU) and CuPy (CUDA) arrays: activations NHWC, weights KRSC.

Every function takes ``out=`` and is deterministic bit for bit, whatever the number of threads.
"""

from stapes.ops.activation import relu_bwd, relu_fwd
from stapes.ops.cast import cast
from stapes.ops.conv import (
    conv2d_bgrad,
    conv2d_dgrad,
    conv2d_fwd,
    conv2d_relu_max_pool2d_bwd,
    conv2d_relu_max_pool2d_fwd,
    conv2d_wgrad,
)
from stapes.ops.conv_transpose import (
    conv_transpose2d_dgrad,
    conv_transpose2d_fwd,
    conv_transpose2d_wgrad,
)
from stapes.ops.dropout import dropout_bwd, dropout_fwd
from stapes.ops.linear import linear_bgrad, linear_dgrad, linear_fwd, linear_wgrad
from stapes.ops.log_mel import log_mel
from stapes.ops.loss import cross_entropy_bwd, cross_entropy_fwd, mse_bwd, mse_fwd
from stapes.ops.loss_scale import find_inf, update_scale
from stapes.ops.norm import (
    batch_norm2d_bwd,
    batch_norm2d_fwd,
    batch_norm2d_relu_global_avg_pool2d_bwd,
    batch_norm2d_relu_global_avg_pool2d_fwd,
    batch_norm2d_relu_max_pool2d_bwd,
    batch_norm2d_relu_max_pool2d_fwd,
)
from stapes.ops.norm_conv import (
    batch_norm2d_relu_conv2d_bwd,
    batch_norm2d_relu_conv2d_fwd,
    conv2d_batch_norm2d_relu_max_pool2d_bwd,
    conv2d_batch_norm2d_relu_max_pool2d_fwd,
)
from stapes.ops.norm_conv_chain import (
    NormConv,
    batch_norm2d_relu_conv2d_chain_bwd,
    batch_norm2d_relu_conv2d_chain_fwd,
)
from stapes.ops.optimizer import adam_step, sgd_step
from stapes.ops.pooling import (
    avg_pool2d_bwd,
    avg_pool2d_fwd,
    global_avg_pool2d_bwd,
    global_avg_pool2d_fwd,
    max_pool2d_bwd,
    max_pool2d_fwd,
)
from stapes.ops.softmax import softmax_bwd, softmax_fwd
from stapes.ops.upsample import upsample2d_bwd, upsample2d_fwd

__all__ = [
    "NormConv",
    "adam_step",
    "avg_pool2d_bwd",
    "avg_pool2d_fwd",
    "batch_norm2d_bwd",
    "batch_norm2d_fwd",
    "batch_norm2d_relu_conv2d_bwd",
    "batch_norm2d_relu_conv2d_chain_bwd",
    "batch_norm2d_relu_conv2d_chain_fwd",
    "batch_norm2d_relu_conv2d_fwd",
    "batch_norm2d_relu_global_avg_pool2d_bwd",
    "batch_norm2d_relu_global_avg_pool2d_fwd",
    "batch_norm2d_relu_max_pool2d_bwd",
    "batch_norm2d_relu_max_pool2d_fwd",
    "cast",
    "conv2d_batch_norm2d_relu_max_pool2d_bwd",
    "conv2d_batch_norm2d_relu_max_pool2d_fwd",
    "conv2d_bgrad",
    "conv2d_dgrad",
    "conv2d_fwd",
    "conv2d_relu_max_pool2d_bwd",
    "conv2d_relu_max_pool2d_fwd",
    "conv2d_wgrad",
    "conv_transpose2d_dgrad",
    "conv_transpose2d_fwd",
    "conv_transpose2d_wgrad",
    "cross_entropy_bwd",
    "cross_entropy_fwd",
    "dropout_bwd",
    "dropout_fwd",
    "find_inf",
    "global_avg_pool2d_bwd",
    "global_avg_pool2d_fwd",
    "linear_bgrad",
    "linear_dgrad",
    "linear_fwd",
    "linear_wgrad",
    "log_mel",
    "max_pool2d_bwd",
    "max_pool2d_fwd",
    "mse_bwd",
    "mse_fwd",
    "relu_bwd",
    "relu_fwd",
    "sgd_step",
    "softmax_bwd",
    "softmax_fwd",
    "update_scale",
    "upsample2d_bwd",
    "upsample2d_fwd",
]
