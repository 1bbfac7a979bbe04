"""Every operator of stapes.ops again, in float64 NumPy: naive, slow and obviously right.

Names, arguments and results are those of stapes.ops, without ``out=``; nothing comes from stapes.
"""

from reference.conv import (
    conv2d_bgrad,
    conv2d_dgrad,
    conv2d_fwd,
    conv2d_relu_max_pool2d_bwd,
    conv2d_relu_max_pool2d_fwd,
    conv2d_wgrad,
    conv_transpose2d_dgrad,
    conv_transpose2d_fwd,
    conv_transpose2d_wgrad,
)
from reference.dense import linear_bgrad, linear_dgrad, linear_fwd, linear_wgrad, relu_bwd, relu_fwd
from reference.dropout import dropout_bwd, dropout_fwd
from reference.log_mel import log_mel
from reference.loss import (
    cross_entropy_bwd,
    cross_entropy_fwd,
    mse_bwd,
    mse_fwd,
    softmax_bwd,
    softmax_fwd,
)
from reference.norm import (
    batch_norm2d_bwd,
    batch_norm2d_fwd,
    batch_norm2d_relu_conv2d_bwd,
    batch_norm2d_relu_conv2d_chain_bwd,
    batch_norm2d_relu_conv2d_chain_fwd,
    batch_norm2d_relu_conv2d_fwd,
    batch_norm2d_relu_global_avg_pool2d_bwd,
    batch_norm2d_relu_global_avg_pool2d_fwd,
    batch_norm2d_relu_max_pool2d_bwd,
    batch_norm2d_relu_max_pool2d_fwd,
    conv2d_batch_norm2d_relu_max_pool2d_bwd,
    conv2d_batch_norm2d_relu_max_pool2d_fwd,
)
from reference.optim import adam_step, sgd_step
from reference.pool import (
    avg_pool2d_bwd,
    avg_pool2d_fwd,
    global_avg_pool2d_bwd,
    global_avg_pool2d_fwd,
    max_pool2d_bwd,
    max_pool2d_fwd,
    upsample2d_bwd,
    upsample2d_fwd,
)

__all__ = [
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
    "upsample2d_bwd",
    "upsample2d_fwd",
]

OPERATORS = tuple(__all__)
