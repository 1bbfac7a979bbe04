"""Stapes: audio CNNs at hardware speed, from a small install."""

from stapes._core import __version__, num_threads, set_num_threads

__all__ = ["__version__", "num_threads", "set_num_threads"]
