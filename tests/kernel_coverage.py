"""Count the lines of the CUDA kernels that the tests run, on the emulator.

    python tests/kernel_coverage.py [--table FILE] [ARGUMENT OF PYTEST...]

Builds the emulator's module for gcov, runs the tests on device simt and prints, as Markdown, lines
and lines missed of each file of csrc/cuda. A line that no test can reach says why in a comment,
"not reached: ..."; the exit status tells whether any other was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
KERNELS = ROOT / "csrc" / "cuda"
BUILD = ROOT / "build" / "simt-coverage"


def run_tests(arguments: list[str]) -> None:
    """Run pytest; counts of earlier runs are forgotten."""
    for old in BUILD.rglob("*.gcda"):
        old.unlink()
    env = os.environ | {
        "STAPES_SIMT_MODE": "coverage",
        "STAPES_SIMT_DIR": str(BUILD),
        "STAPES_TEST_DEVICES": "simt",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    if subprocess.run(command, cwd=TESTS, env=env).returncode:
        raise SystemExit("the tests fail: their coverage says nothing")


def operator_tests() -> list[str]:
    """Return the files whose tests take a device: those of operators and of the emulator."""
    words = ("(ops, ", "(cuda", "simt")
    files = sorted(TESTS.glob("test_*.py"))
    return [f.name for f in files if any(word in f.read_text() for word in words)]


def counted() -> dict[Path, Counter[int]]:
    """Return how often each line of each kernel's file ran, over all objects that hold it."""
    counts: defaultdict[Path, Counter[int]] = defaultdict(Counter)
    for data in BUILD.rglob("*.gcda"):
        command = ["gcov", "--json-format", "--stdout", str(data)]
        told = subprocess.run(command, cwd=BUILD, stdout=subprocess.PIPE, check=True).stdout
        for file in json.loads(told)["files"]:
            path = (BUILD / file["file"]).resolve()
            if path.parent == KERNELS:
                for line in file["lines"]:
                    counts[path][line["line_number"]] += line["count"]
    return dict(counts)


def main() -> None:
    """Run the tests and print what they missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, help="write the table here, too")
    args, rest = parser.parse_known_args()
    run_tests(rest or operator_tests())

    rows, lines, ran, unexplained = [], 0, 0, 0
    for path, counts in sorted(counted().items()):
        text = path.read_text().splitlines()
        missed = [n for n, count in sorted(counts.items()) if count == 0]
        told = []
        for n in missed:
            _, _, why = text[n - 1].partition("// not reached: ")
            unexplained += not why
            told.append(f"{n}: {why or '**' + text[n - 1].strip() + '**'}")
        lines, ran = lines + len(counts), ran + len(counts) - len(missed)
        said = "; ".join(told).replace("|", "\\|")
        rows.append(f"| {path.name} | {len(counts)} | {len(missed)} | {said} |")
    if not lines:
        raise SystemExit("no line of a kernel was counted: were the tests on simt?")
    table = "\n".join(
        [
            f"{ran} of {lines} lines ran ({100 * ran / lines:.1f} %); "
            f"of those missed, {unexplained} do not say why.",
            "",
            "| file | lines | missed | which |",
            "|---|---|---|---|",
            *rows,
        ]
    )
    print(table)
    if args.table:
        args.table.write_text(table + "\n")
    sys.exit(1 if unexplained else 0)


if __name__ == "__main__":
    main()
