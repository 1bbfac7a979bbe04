"""Labelled sound: folders and tables of files, splits, batches, augmentation.

Features are computed once and kept on disk, in memory-mapped arrays that batches are read from. The
cache lies in ``cache_dir``, else in ``$STAPES_CACHE``, else in ``$XDG_CACHE_HOME/stapes`` or
``~/.cache/stapes``. An entry is known by the content of the sound files, the settings of the
features and the length of the clips: a changed file or setting makes a new one, a renamed or moved
file does not. Entries may be deleted at any time.
"""

from stapes.data._augment import Augment, Augmented
from stapes.data._dataset import AudioData
from stapes.data._folder import AudioFolder
from stapes.data._manifest import Manifest
from stapes.data._windows import window_starts, windows

__all__ = [
    "AudioData",
    "AudioFolder",
    "Augment",
    "Augmented",
    "Manifest",
    "window_starts",
    "windows",
]
