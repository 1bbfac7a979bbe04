"""A pytest plugin: each test's start and outcome, one JSON object a line, written at once.

So that what was done is known even where a test hangs or takes the process down. An error that
leaves the GPU unusable for the process (an access out of bounds, say) stops the run: the tests
after it would fail for its sake alone, and are to be run in a new process.

``STAPES_TEST_RECORDS`` names the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

STICKY = (
    "cudaErrorIllegalAddress", "illegal memory access", "cudaErrorLaunchFailure",
    "unspecified launch failure", "cudaErrorMisalignedAddress", "misaligned address",
    "cudaErrorIllegalInstruction", "illegal instruction", "device-side assert",
    "cudaErrorHardwareStackError", "cudaErrorInvalidPc", "cudaErrorInvalidAddressSpace",
)  # fmt: skip


def _write(**record: Any) -> None:
    with Path(os.environ["STAPES_TEST_RECORDS"]).open("a") as file:
        file.write(json.dumps(record) + "\n")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tell which tests there are."""
    _write(kind="collected", tests=[item.nodeid for item in session.items])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Tell that a test begins."""
    _write(kind="begin", test=item.nodeid)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Tell how a test ended: after its call, or where its setup or teardown failed or skipped."""
    report = yield
    if report.when == "call" or report.outcome != "passed":
        text = "" if report.outcome == "passed" else report.longreprtext
        if report.skipped and isinstance(report.longrepr, tuple):
            text = report.longrepr[2]
        broken = any(mark in text for mark in STICKY)
        _write(
            kind="end", test=item.nodeid, outcome=report.outcome, seconds=round(report.duration, 3),
            error=_gist(text), broken=broken,
        )  # fmt: skip
        if broken:
            item.session.shouldstop = "the GPU cannot be used any more by this process"
    return report


def _gist(text: str, count: int = 6) -> list[str]:
    """Return the lines pytest marks as the error; else the last lines."""
    lines = text.splitlines()
    marked = [line[1:].strip() for line in lines if line.startswith("E ")]
    return [line[:240] for line in (marked or lines[-count:])[:count]]
