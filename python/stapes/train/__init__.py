"""Training: callbacks, metrics, checkpoints; the loop itself is `nn.Sequential.fit`."""

from stapes.train.callbacks import Callback, CSVLogger, EarlyStopping, History, StopWhen
from stapes.train.checkpoint import Checkpoint
from stapes.train.errors import DivergedError
from stapes.train.metrics import confusion_matrix

__all__ = [
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "DivergedError",
    "EarlyStopping",
    "History",
    "StopWhen",
    "confusion_matrix",
]
