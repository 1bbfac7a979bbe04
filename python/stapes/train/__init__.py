"""Training: callbacks, metrics, checkpoints; the loop itself is `nn.Sequential.fit`."""

from stapes.train.callbacks import Callback, CSVLogger, EarlyStopping, History, StopWhen
from stapes.train.checkpoint import Checkpoint
from stapes.train.cuda import CudaRuntime
from stapes.train.errors import DivergedError
from stapes.train.metrics import confusion_matrix
from stapes.train.runtime import HostRuntime

__all__ = [
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "CudaRuntime",
    "DivergedError",
    "EarlyStopping",
    "History",
    "HostRuntime",
    "StopWhen",
    "confusion_matrix",
]
