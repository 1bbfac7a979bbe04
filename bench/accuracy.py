"""Train on every data set of a folder with the defaults, and evaluate on its test part.

    python bench/accuracy.py ROOT [--seeds 0 1 2] [--out RUNS] [--json FILE]

ROOT holds one folder a set, each with train/ and test/ and in these one folder a class. Every run
is `stapes train SET --seed S` and then `stapes evaluate MODEL SET`, as a user would type them; the
only option is the seed. Prints balanced accuracy on test: each seed, and their mean.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def stapes(*args: str) -> dict[str, Any]:
    """Run the command line and return its one JSON object."""
    command = [sys.executable, "-m", "stapes", *args, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def run(data: Path, seed: int, out: Path) -> dict[str, Any]:
    """Train one model and evaluate it; a run that is there already is not trained again."""
    folder = out / f"{data.name}-{seed}"
    model = folder / "model.safetensors"
    trained: dict[str, Any] = {}
    if not model.exists():
        trained = stapes("train", str(data), "--seed", str(seed), "--out", str(folder))
    evaluated = stapes("evaluate", str(model), str(data))
    return {
        "set": data.name,
        "seed": seed,
        "balanced_accuracy": evaluated["balanced_accuracy"],
        "seconds": trained.get("seconds"),
        "epochs": trained.get("epochs"),
    }


def table(runs: list[dict[str, Any]]) -> str:
    """Return a Markdown table: a line a set."""
    lines = ["| set | each seed | mean | seconds a run |", "|---|---|---|---|"]
    for name in dict.fromkeys(r["set"] for r in runs):
        mine = [r for r in runs if r["set"] == name]
        scores = [r["balanced_accuracy"] for r in mine]
        seconds = [r["seconds"] for r in mine if r["seconds"] is not None]
        lines.append(
            f"| {name} | {', '.join(f'{s:.3f}' for s in scores)} | {statistics.mean(scores):.3f}"
            f" | {f'{statistics.mean(seconds):.0f}' if seconds else '-'} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="keep the run folders here")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    sets = sorted(
        p for p in args.root.iterdir() if (p / "train").is_dir() and (p / "test").is_dir()
    )
    if not sets:
        parser.error(f"{args.root} holds no folder with train/ and test/")
    with tempfile.TemporaryDirectory() as temporary:
        out = args.out or Path(temporary)
        runs = [run(data, seed, out) for data in sets for seed in args.seeds]
    print(table(runs))
    if args.json:
        args.json.write_text(json.dumps(runs, indent=1) + "\n")


if __name__ == "__main__":
    main()
