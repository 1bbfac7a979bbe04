"""What ptxas says of each kernel: registers, shared memory, spills.

    kernel_log.py compile NVCC ARGUMENT...   runs nvcc; keeps the figures beside the object; fails
                                             on spills of kernels that spills.txt does not name
    kernel_log.py report NVCC ARGUMENT...    the same, but only tells of such spills
    kernel_log.py table BUILD                prints the figures of a build as a Markdown table

CMake runs the first for every source, where warnings are errors, and else the second
(csrc/cuda/cuda.cmake).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(\w+)'")
SPILL = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
EXPECTED = Path(__file__).with_name("spills.txt")
SUFFIX = ".ptxas.json"


def parse(text: str) -> list[dict[str, str | int]]:
    """Return a record for each kernel and architecture, from what nvcc printed."""
    records: list[dict[str, str | int]] = []
    for line in text.splitlines():
        if entry := ENTRY.search(line):
            records.append({"kernel": entry[1], "arch": entry[2], "shared": 0})
        elif not records:
            continue
        elif spill := SPILL.search(line):
            stack, stores, loads = map(int, spill.groups())
            records[-1] |= {"stack": stack, "spill_stores": stores, "spill_loads": loads}
        elif used := USED.search(line):
            shared = SHARED.search(line)
            records[-1] |= {"registers": int(used[1]), "shared": int(shared[1]) if shared else 0}
    return records


def compile_one(command: list[str], *, strict: bool) -> int:
    """Run nvcc, and show what it said but for ptxas's figures; ``strict`` fails on spills."""
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    noise = ("ptxas info", "    ", "bytes stack frame")
    told = [line for line in done.stderr.splitlines() if not line.startswith(noise)]
    print(*told, sep="\n", end="\n" if told else "", file=sys.stderr)
    if done.returncode or "-o" not in command:
        return done.returncode
    output = Path(command[command.index("-o") + 1])
    records = parse(done.stderr)
    output.with_name(output.name + SUFFIX).write_text(json.dumps(records, indent=1))
    allowed = [w for w in EXPECTED.read_text().splitlines() if w and not w.startswith("#")]
    bad = [r for r in records if r.get("spill_stores") and not named(r, allowed)]
    for r in bad:
        print(
            f"{'error' if strict else 'warning'}: {demangled([str(r['kernel'])])[0]} "
            f"({r['arch']}): {r['spill_stores']} bytes of registers spilled; mend it, or name it "
            f"in {EXPECTED}",
            file=sys.stderr,
        )
    if not bad or not strict:
        return 0
    output.unlink(missing_ok=True)
    return 1


def named(record: dict[str, str | int], allowed: list[str]) -> bool:
    """Tell whether spills.txt has a line "ARCH,... part-of-the-mangled-name" for this kernel."""
    pairs = (line.split() for line in allowed)
    return any(
        record["arch"] in archs.split(",") and part in str(record["kernel"])
        for archs, part in pairs
    )


def demangled(names: list[str]) -> list[str]:
    """Return readable names, without arguments."""
    done = subprocess.run(["c++filt", "-p", *names], stdout=subprocess.PIPE, text=True, check=True)
    return [
        re.sub(r"stapes::cuda::|\(anonymous namespace\)::", "", n) for n in done.stdout.split("\n")
    ]


def table(build: Path) -> str:
    """Return a line a kernel, with registers / shared memory / spilled bytes by architecture."""
    files = sorted(build.rglob(f"*{SUFFIX}"))
    records = [r for f in files for r in json.loads(f.read_text())]
    archs = sorted({str(r["arch"]) for r in records}, key=lambda a: int(re.sub(r"\D", "", a)))
    kernels = list(dict.fromkeys(str(r["kernel"]) for r in records))
    figures = {
        (r["kernel"], r["arch"]): f"{r['registers']} / {r['shared']} / {r['spill_stores']}"
        for r in records
    }
    lines = [
        "Registers / bytes of static shared memory / bytes of spills",
        "",
        f"| kernel | {' | '.join(archs)} |",
        f"|---|{'---|' * len(archs)}",
    ]
    for kernel, name in sorted(zip(kernels, demangled(kernels), strict=False), key=lambda k: k[1]):
        cells = " | ".join(figures.get((kernel, arch), "") for arch in archs)
        lines.append(f"| `{name}` | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] in (["compile"], ["report"]):
        sys.exit(compile_one(sys.argv[2:], strict=sys.argv[1] == "compile"))
    if sys.argv[1:2] == ["table"] and len(sys.argv) == 3:
        print(table(Path(sys.argv[2])))
    else:
        sys.exit(__doc__)
