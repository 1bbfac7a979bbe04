"""Ctrl-C between two steps, not within one."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupts:
    """While active, the first Ctrl-C only sets a flag, and `check` raises it.

    A step that is cut in two would leave weights that belong to no position, and a checkpoint of
    them could not be resumed to the same bits. A second Ctrl-C is raised at once. Where the handler
    is not Python's own, or outside the main thread, nothing is changed.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            try:
                self._before = signal.signal(signal.SIGINT, self._handle)
            except ValueError:  # only the main thread may, and only it gets the signal
                self._before = None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        if kind is None:
            self.check()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def check(self) -> None:
        """Raise what was asked for.

        Raises
        ------
        KeyboardInterrupt
            After a Ctrl-C.
        """
        if self._asked:
            self._asked = False
            raise KeyboardInterrupt
