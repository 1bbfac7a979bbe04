"""All checks in one command: ``nox``. One of them: ``nox -s lint``. What each does: ``nox -l``."""

from __future__ import annotations

import difflib
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import nox

nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "native", "tests"]

PROJECT = nox.project.load_toml("pyproject.toml")["project"]
EXTRAS = PROJECT["optional-dependencies"]
STUB = Path("python/stapes/_core.pyi")
OPERATORS = (
    "arrays|batch_norm|batch_norm_conv|batch_norm_fused|conv2d|conv2d_fused|conv_transpose2d"
    "|cross_entropy|dropout|errors|first_block|linear|log_mel_op|mse|optim_steps|pool2d|relu|softmax"
    "|threads|upsample"
)
CPP_COLUMNS = 120
NVCC = (
    *("nvidia-cuda-nvcc==13.0.88", "nvidia-cuda-crt==13.0.88", "nvidia-nvvm==13.0.88"),
    *("nvidia-cuda-runtime==13.0.*", "nvidia-cuda-cccl==13.0.*"),
)
IN_PLACE = {"PYTHONPATH": str(Path("python").resolve())}
PYBIND11 = Path("build/pybind11").resolve()  # one copy: another session's would mean building anew


def cpp_files() -> list[str]:
    """C++ and CUDA sources and headers, tracked or new."""
    listed = _output("git", "ls-files", "--cached", "--others", "--exclude-standard", "csrc")
    kinds = (".cpp", ".hpp", ".cu", ".cuh")
    return [f for f in listed if f.endswith(kinds) and Path(f).exists()]


def tools(*names: str) -> list[str]:
    """Return the requirements of these packages as the ``dev`` extra states them."""
    by_name = {re.split(r"[=<>~\[]", r)[0]: r for r in EXTRAS["dev"]}
    return [by_name[name] for name in names]


def build(session: nox.Session, where: str, target: str, *options: str) -> None:
    """Build the extension incrementally in ``where`` and leave it in the folder ``target``."""
    session.install(*tools("cmake", "ninja"))
    if not PYBIND11.exists():
        session.install("--target", str(PYBIND11), *tools("pybind11"))
    python = f"{session.virtualenv.bin}/python"
    session.run(
        "cmake", "-S", ".", "-B", where, "-G", "Ninja", f"-DPython_EXECUTABLE={python}",
        f"-Dpybind11_DIR={PYBIND11 / 'pybind11/share/cmake/pybind11'}",
        f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={Path(target).resolve()}", "-DSTAPES_CUDA=OFF",
        *options, silent=True,
    )  # fmt: skip
    session.run("cmake", "--build", where)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff over Python, clang-format over C++, which leaves long comments as they are."""
    session.install(*tools("ruff", "clang-format"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("clang-format", "--dry-run", "--Werror", *cpp_files(), silent=True)
    for path in cpp_files():
        for number, line in enumerate(Path(path).read_text().splitlines(), 1):
            if len(line) > CPP_COLUMNS:
                session.error(f"{path}:{number}: more than {CPP_COLUMNS} columns")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, over the package; compiled code is seen through its committed stub."""
    session.install(*tools("mypy"), *PROJECT["dependencies"])
    session.run("mypy")


@nox.session
def native(session: nox.Session) -> None:
    """Build in place; stub current, variants apart, clang-tidy."""
    build(session, "build/nox", "python/stapes")
    session.install("numpy", *tools("pybind11-stubgen", "ruff", "clang-tidy"))
    check_stub(session)
    check_variants(Path("build/nox"))
    tidy(session)


@nox.session(default=False)
def stub(session: nox.Session) -> None:
    """Write python/stapes/_core.pyi again (after a change of csrc/bindings.cpp)."""
    build(session, "build/nox", "python/stapes")
    session.install("numpy", *tools("pybind11-stubgen", "ruff"))
    STUB.write_text(generated_stub(session))


@nox.session
def tests(session: nox.Session) -> None:
    """Pytest over the package built in place; ``nox -s tests -- -k conv`` passes options on."""
    build(session, "build/nox", "python/stapes")
    session.install(*PROJECT["dependencies"], *EXTRAS["test"])
    session.run("pytest", *session.posargs, env=IN_PLACE)


@nox.session(default=False)
def sanitize(session: nox.Session) -> None:
    """Run the operators' tests under AddressSanitizer and UndefinedBehaviorSanitizer.

    ``STAPES_ISA=x86-64-v2 nox -s sanitize -- tests/test_conv2d.py`` chooses variant and tests.
    """
    # A copy of the package around the instrumented module: the one built in place stays as it is.
    package = Path("build/sanitize/python/stapes")
    without_module = shutil.ignore_patterns("_core*.so", "__pycache__")
    shutil.copytree("python/stapes", package, ignore=without_module, dirs_exist_ok=True)
    build(session, "build/sanitize/cmake", str(package), "-DSTAPES_SANITIZE=ON")
    session.install(*PROJECT["dependencies"], *EXTRAS["test"])
    names = ("libasan.so", "libubsan.so", "libstdc++.so")
    runtimes = [_output("g++", f"-print-file-name={name}")[0] for name in names]
    session.run(
        "pytest", *(session.posargs or [f"tests/test_{name}.py" for name in OPERATORS.split("|")]),
        env={
            "PYTHONPATH": str(package.parent.resolve()),
            "LD_PRELOAD": ":".join(runtimes),
            "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter never frees everything
            "UBSAN_OPTIONS": "print_stacktrace=1",
        },
    )  # fmt: skip


@nox.session(default=False)
def sanitize_cuda(session: nox.Session) -> None:
    """Run the CUDA kernels on the emulator under AddressSanitizer and UBSan."""
    build(session, "build/nox", "python/stapes")
    session.install(*PROJECT["dependencies"], *EXTRAS["test"])
    session.run("bash", "tests/sanitize_cuda.sh", *session.posargs, env=IN_PLACE, external=True)


@nox.session(default=False)
def cuda(session: nox.Session) -> None:
    """Compile the CUDA kernels for two architectures; print registers, shared memory and spills.

    nvcc comes from PyPI where there is none. ``nox -s cuda -- 75-real 120`` chooses others.
    """
    session.install(*tools("cmake", "ninja", "pybind11"))
    if not shutil.which("nvcc"):
        session.install(*NVCC)
    architectures = ";".join(session.posargs or ["80-real", "90a-real"])
    session.run(
        "cmake", "-S", ".", "-B", "build/cuda", "-G", "Ninja", "-DSTAPES_CUDA=ON",
        f"-DPython_EXECUTABLE={session.virtualenv.bin}/python",
        f"-DSTAPES_CUDA_ARCHITECTURES={architectures}", silent=True,
    )  # fmt: skip
    session.run("cmake", "--build", "build/cuda", "--target", "stapes_cuda", silent=True)
    session.run("python", "csrc/cuda/kernel_log.py", "table", "build/cuda")


@nox.session(default=False)
def instructions(session: nox.Session) -> None:
    """Look for tensor-core instructions in the machine code that ``nox -s cuda`` made."""
    session.install("nvidia-cuda-cuobjdump>=13.0", "nvidia-cuda-nvdisasm>=13.0")
    session.run("python", "csrc/cuda/instructions.py", "build/cuda")


def generated_stub(session: nox.Session) -> str:
    """Return what pybind11-stubgen makes of the module built in place, laid out by ruff."""
    with tempfile.TemporaryDirectory() as folder:
        session.run(
            "pybind11-stubgen", "stapes._core", "-o", folder, "--exit-code",
            env=IN_PLACE, silent=True,
        )  # fmt: skip
        path = Path(folder) / "stapes" / "_core.pyi"
        text = re.sub(r"(?m)^(__version__: str) = .*$", r"\1", path.read_text())
        path.write_text(f"# Generated by `nox -s stub`. Do not edit.\n{text}")
        ruff = "--quiet", "--config", "pyproject.toml", str(path)
        session.run("ruff", "check", "--fix-only", *ruff, silent=True)
        session.run("ruff", "format", *ruff, silent=True)
        return path.read_text()


def check_stub(session: nox.Session) -> None:
    """Fail where the committed stub is not what the module built in place gives."""
    committed, wanted = STUB.read_text(), generated_stub(session)
    difference = difflib.unified_diff(committed.splitlines(), wanted.splitlines(), n=0, lineterm="")
    if committed != wanted:
        session.error(f"{STUB} is old: run nox -s stub\n" + "\n".join(difference))


def check_variants(build_dir: Path) -> None:
    """Fail where the linker could merge code of two instruction sets.

    Of functions with one name it keeps a single copy, the first: were that the AVX-512 one, the
    others would run it on machines without AVX-512. So in the objects of a variant each function
    that other files see has the variant's namespace in its name. Data may be shared.
    """
    shared = []
    for folder in sorted(build_dir.glob("CMakeFiles/stapes_cpu_*.dir")):
        isa = folder.stem.removeprefix("stapes_cpu_")
        # Names with generic lambdas in them stay mangled.
        inside = (f"stapes::cpu::{isa}::", f"6stapes3cpu{len(isa)}{isa}")
        for line in _output("nm", "-C", "--defined-only", *map(str, folder.rglob("*.o"))):
            _, kind, name = [*line.split(" ", 2), "", ""][:3]
            if kind in ("T", "W", "i") and not any(part in name for part in inside):
                shared.append(f"{isa}: {name}")
    if shared:
        raise SystemExit("functions outside their variant's namespace:\n" + "\n".join(shared))


def tidy(session: nox.Session) -> None:
    """Run clang-tidy over each source once: kernels as compiled for AVX2."""
    commands = json.loads(Path("build/nox/compile_commands.json").read_text())
    once = [c for c in commands if not re.search(r"stapes_cpu_v[24]\.dir", c["command"])]
    folder = Path("build/nox/tidy")
    folder.mkdir(exist_ok=True)
    (folder / "compile_commands.json").write_text(json.dumps(once))
    # OpenMP's header is GCC's own; searched last, so that Clang's own headers come first.
    omp = _output("g++", "-print-file-name=include/omp.h")[0]
    files = [c["file"] for c in once]
    session.run(
        "clang-tidy", "-p", str(folder), "--quiet",
        f"--extra-arg=-idirafter{Path(omp).parent}", *files, silent=True,
    )  # fmt: skip


def _output(*command: str) -> list[str]:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()
