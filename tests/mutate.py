"""Break the CUDA kernels on purpose, one fault at a time, and see whether the tests notice.

    python tests/mutate.py [WORD...] [--jobs 2] [--table FILE]

The faults are in mutations.toml: a file of csrc/cuda, what is there, what to put in its place, and
the tests that should fail. Each is built into the emulator's module in a copy of the sources, and
the tests are run until one fails. WORDs choose faults by a part of their name. Prints a Markdown
table of what caught each; the exit status tells whether at least 95 % were caught.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
LIMIT = 900  # seconds for one fault: a build, and tests that may hang where a barrier is gone


@dataclass(frozen=True)
class Fault:
    """A change of one place, and the tests that should notice: arguments of pytest."""

    name: str
    file: str
    old: str
    new: str
    tests: str
    survives: str = ""  # why it may go unnoticed

    def apply(self, tree: Path) -> str:
        """Change the copy of the sources; return the text before."""
        path = tree / "csrc/cuda" / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise SystemExit(
                f"{self.name}: {self.file} holds the old text {text.count(self.old)} times"
            )
        path.write_text(text.replace(self.old, self.new))
        return text


def faults(words: list[str]) -> list[Fault]:
    """Read mutations.toml."""
    known = [Fault(**f) for f in tomllib.loads((TESTS / "mutations.toml").read_text())["fault"]]
    return [f for f in known if not words or any(w in f"{f.file}: {f.name}" for w in words)]


def copy_tree(where: Path) -> Path:
    """Copy what the tests on the emulator need."""
    for name in ("csrc", "python", "tests"):
        shutil.copytree(ROOT / name, where / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("CMakeLists.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, where / name)
    return where


def run_tests(tree: Path, tests: str) -> tuple[bool, str]:
    """Return whether all passed, and what was said of the first that did not."""
    env = os.environ | {
        "PYTHONPATH": str(tree / "python"),
        "STAPES_TEST_DEVICES": "simt",
        "STAPES_SIMT_DIR": str(tree / "build"),
        "STAPES_WERROR": "OFF",  # a fault that leaves a variable unused is to be built all the same
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=line", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*command, *shlex.split(tests)], cwd=tree / "tests", env=env, timeout=LIMIT,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False, "hangs"
    if done.returncode in (4, 5) or "cmake --build" in done.stdout:
        raise SystemExit(
            f"{tests}: no such test, or the fault cannot be built:\n{done.stdout[-3000:]}"
        )
    if done.returncode not in (0, 1):  # a crash
        return False, f"pytest ended with {done.returncode}: {done.stdout.strip()[-300:]}"
    return done.returncode == 0, reason(done.stdout)


def reason(output: str) -> str:
    """Return the line that tells most: the emulator's message, or the assertion."""
    if found := re.search(
        r"\b(race|uninit|bounds|align|async|barrier|local|launch): [^\n]*", output
    ):
        return found[0][:160]
    if found := re.search(r"(?:AssertionError|Error): [^\n]*", output):
        return found[0][:160] if found[0].split(":")[1].strip() else "wrong numbers"
    return output.strip().splitlines()[-1][:160] if output.strip() else ""


def table(tried: list[tuple[Fault, bool, str]]) -> str:
    """Return what became of each fault as Markdown."""
    caught = sum(not passed for _, passed, _ in tried)
    lines = [
        f"{caught} of {len(tried)} faults caught ({100 * caught / max(1, len(tried)):.0f} %).",
        "",
        "| file | fault | noticed by |",
        "|---|---|---|",
    ]
    for fault, passed, why in tried:
        told = f"**survives**: {fault.survives or 'not explained'}" if passed else f"`{why}`"
        lines.append(f"| {fault.file} | {fault.name} | {told} |".replace("||", "\\|\\|"))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Try all faults and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--table", type=Path, help="write the table here")
    args = parser.parse_args()
    chosen = faults(args.words)
    with tempfile.TemporaryDirectory() as folder:
        trees: queue.Queue[Path] = queue.Queue()
        for i in range(args.jobs):
            trees.put(copy_tree(Path(folder) / str(i)))

        done: list[tuple[Fault, bool, str]] = []

        def attempt(fault: Fault) -> None:
            tree = trees.get()
            before = fault.apply(tree)
            try:
                passed, why = run_tests(tree, fault.tests)
            finally:
                (tree / "csrc/cuda" / fault.file).write_text(before)
                trees.put(tree)
            print(f"{'SURVIVES' if passed else 'caught  '} {fault.file}: {fault.name}", flush=True)
            done.append((fault, passed, why))
            if args.table:  # after each, so that a long run that is cut off has something to show
                args.table.write_text(table(sorted(done, key=lambda d: chosen.index(d[0]))))

        with ThreadPoolExecutor(args.jobs) as pool:
            list(pool.map(attempt, chosen))
    print(table(done))
    sys.exit(0 if done and sum(passed for _, passed, _ in done) <= 0.05 * len(done) else 1)


if __name__ == "__main__":
    main()
