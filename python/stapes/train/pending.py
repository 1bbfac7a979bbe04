"""A step's numbers, which may come later than the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from stapes.device import Array


class Pending:
    """A step that was done or launched, on its way to the metrics.

    Parameters
    ----------
    samples : int
    loss : float
        Before the step.
    output : array
        The network's, on the host; valid until the next step.
    target : array
        As the loss takes it; on the host once the step was waited for.

    Attributes
    ----------
    logs : mapping or None
        What callbacks are told, once it is known.
    """

    __slots__ = ("logs", "loss", "output", "samples", "target")

    def __init__(self, samples: int, loss: float, output: Array, target: Any) -> None:
        self.samples, self.loss, self.output, self.target = samples, loss, output, target
        self.logs: Mapping[str, Any] | None = None

    def wait(self) -> None:
        """Wait until ``loss``, ``output`` and ``target`` are there.

        Raises
        ------
        DivergedError
            If the loss is NaN or infinite.
        """


class LateLogs(Mapping[str, Any]):
    """What callbacks get at the end of a batch: its place at once, its numbers when asked for.

    Parameters
    ----------
    place : mapping
    pending : Pending
    settle : callable
        Waits for the steps up to this one, so that they have their ``logs``.
    """

    def __init__(
        self, place: Mapping[str, Any], pending: Pending, settle: Callable[[Pending], None]
    ) -> None:
        self._place, self._pending, self._settle = place, pending, settle

    def _all(self) -> Mapping[str, Any]:
        if self._pending.logs is None:
            self._settle(self._pending)
        assert self._pending.logs is not None
        return {**self._place, **self._pending.logs}

    def __getitem__(self, name: str) -> Any:
        return self._place[name] if name in self._place else self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())
