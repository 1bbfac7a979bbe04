"""Size of an installation, and the time that importing it takes.

    python bench/install_size.py [--torch] [REQUIREMENT]

Installs REQUIREMENT (default: this folder) in a fresh virtual environment, and prints the size on
disk of the package itself and of all it brings, and the median time of `import stapes` beyond that
of starting Python. With --torch the same for PyTorch 2.13, from the index that pip is set to.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def mebibytes(folder: Path) -> float:
    """Return the space that a folder's files take on disk."""
    return sum(p.lstat().st_blocks * 512 for p in folder.rglob("*")) / 2**20


def seconds(python: Path, code: str) -> float:
    """Return the median time of running ``code`` in a new interpreter."""
    times = []
    for _ in range(15):
        begin = time.perf_counter()
        subprocess.run([python, "-c", code], check=True)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def measure(module: str, requirements: list[str]) -> None:
    """Install in a fresh environment and print a row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        packages = next((Path(folder) / "lib").glob("python3*")) / "site-packages"
        before = mebibytes(packages)
        subprocess.run([python, "-m", "pip", "install", "-q", *requirements], check=True)
        everything = mebibytes(packages) - before
        itself = mebibytes(packages / module)
        imports = seconds(python, f"import {module}") - seconds(python, "pass")
    print(f"| {module} | {itself:.1f} | {everything:.1f} | {imports:.3f} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("requirement", nargs="?", default=str(ROOT))
    parser.add_argument("--torch", action="store_true", help="measure PyTorch too")
    args = parser.parse_args()
    print(f"Python {sys.version.split()[0]}\n")
    print("| package | itself, MiB | with all it brings, MiB | import, s |\n|---|---|---|---|")
    measure("stapes", [args.requirement])
    if args.torch:
        measure("torch", ["torch==2.13.0", "numpy"])


if __name__ == "__main__":
    main()
