"""Whether the machine code of the matrix kernels has the instructions that it is meant to have.

    instructions.py BUILD

Reads the objects of a build for CUDA with cuobjdump and nvdisasm, of CUDA's toolkit or of
``pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm``. Prints how many tensor-core products
(HMMA), matrix loads (LDSM) and asynchronous copies (LDGSTS) the kernel with most of them has, for
each operator, arithmetic and architecture. Fails where any kernel for tensor cores has no product
of its type, or one for plain multiply-adds has some.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter, defaultdict
from pathlib import Path

from kernel_log import demangled

WHEELS = Path(sysconfig.get_path("purelib"), "nvidia", "cu13", "bin")
PLACE = re.compile(r"^\s*Function : (\S+)|^arch = (\w+)", re.MULTILINE)
COUNTED = ("HMMA", "LDSM", "LDGSTS")
INSTRUCTION = re.compile(rf"\b({'|'.join(COUNTED)})([.A-Z0-9]*)")
KERNEL = re.compile(r"conv2d_gemm_kernel<(\w+)Problem<(\w+(?:<\w+>)?)")
MEANT = {  # the arithmetic's products, and the first architecture with them
    "Ffma": (None, 0),
    "Tf32": ("TF32", 80),
    "Tf32x3": ("TF32", 80),
    "Mma16<__half>": ("F32", 75),
    "Mma16<__nv_bfloat16>": ("BF16", 80),
}


def instructions(obj: Path) -> dict[tuple[str, str], Counter[str]]:
    """Return what each function of each architecture in an object has, by mangled name."""
    path = os.pathsep.join([os.environ["PATH"], str(WHEELS)])
    tool = shutil.which("cuobjdump", path=path)
    if tool is None:
        raise SystemExit("no cuobjdump: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm")
    text = subprocess.run(
        [tool, "--dump-sass", str(obj)], env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE, text=True, check=True,
    ).stdout  # fmt: skip
    found: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    arch, places = "", [*PLACE.finditer(text)]
    for place, after in zip(places, [*places[1:], None], strict=True):
        if place[2]:
            arch = place[2]
            continue
        body = text[place.end() : after.start() if after else len(text)]
        counts = found[place[1], arch]
        for name, kind in INSTRUCTION.findall(body):
            counts[name] += 1
            if name == "HMMA":
                counts[kind.rsplit(".", 1)[-1]] += 1  # the operands' type, F32 for half
    return dict(found)


def number(arch: str) -> int:
    """Return 90 for sm_90a."""
    return int(re.sub(r"\D", "", arch))


def main(build: Path) -> int:
    """Print the table; return 1 where a kernel is not as meant."""
    kernels: defaultdict[tuple[str, str, str], list[Counter[str]]] = defaultdict(list)
    for obj in sorted(build.rglob("conv2d_*.cu.o")):
        found = instructions(obj)
        for (_, arch), name, counts in zip(
            found, demangled([name for name, _ in found]), found.values(), strict=False
        ):
            if kernel := KERNEL.search(name):
                kernels[kernel[1], kernel[2], arch].append(counts)
    archs = sorted({arch for _, _, arch in kernels}, key=number)
    lines = [f"| operator | arithmetic | {' | '.join(archs)} |", f"|---|---|{'---|' * len(archs)}"]
    wrong = []
    for operator, arithmetic in dict.fromkeys(kernel[:2] for kernel in sorted(kernels)):
        product, since = MEANT[arithmetic]
        cells = []
        for arch in archs:
            counts = kernels[operator, arithmetic, arch]
            cells.append(" / ".join(str(max(c[name] for c in counts)) for name in COUNTED))
            unmeant = [c["HMMA"] for c in counts if product is None and c["HMMA"]]
            without = [c for c in counts if product and number(arch) >= since and not c[product]]
            if unmeant or without:
                wrong.append(f"{operator} {arithmetic} {arch}: not the tensor-core products meant")
        lines.append(f"| {operator} | `{arithmetic}` | {' | '.join(cells)} |")
    print(*lines, *wrong, sep="\n")
    if not kernels:
        raise SystemExit(f"{build} holds no object of a matrix kernel")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
