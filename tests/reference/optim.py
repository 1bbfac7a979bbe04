"""One step of torch.optim.SGD, Adam and AdamW over lists of arrays, in place."""

from __future__ import annotations

import numpy as np


def sgd_step(params, grads, velocity, *, lr, momentum=0, nesterov=False, weight_decay=0):
    for p, grad, v in zip(params, grads, velocity, strict=True):
        g = np.float64(grad) + weight_decay * p
        v[...] = momentum * v + g
        p -= lr * (g + momentum * v if nesterov else v)


def adam_step(params, grads, m, v, step, *, lr, betas, eps, weight_decay=0, decoupled=False):
    """Kingma and Ba, 2014; decoupled weight decay by Loshchilov and Hutter, 2017."""
    beta1, beta2 = betas
    for p, grad, p_m, p_v in zip(params, grads, m, v, strict=True):
        g = np.float64(grad)
        if decoupled:
            p *= 1 - lr * weight_decay
        else:
            g = g + weight_decay * p
        p_m[...] = beta1 * p_m + (1 - beta1) * g
        p_v[...] = beta2 * p_v + (1 - beta2) * g**2
        m_hat, v_hat = p_m / (1 - beta1**step), p_v / (1 - beta2**step)
        p -= lr * m_hat / (np.sqrt(v_hat) + eps)
