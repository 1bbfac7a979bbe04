#!/usr/bin/env bash
# Builds Stapes for the GPU of this machine, tests it there, and measures it beside PyTorch:
#
#     bash bench/gpu.sh OUT [build|test|sanitize|ops|step ...]
#
# Writes OUT/report.md and OUT/report.json after every stage. No stages named: all of them. It ends within 9 minutes;
# what was not reached is reported as not run, so name a stage alone to give it all the time. Needs no network: CUDA's
# nvcc, and in the Python (PYTHON, else python3) pip, pybind11, scikit-build-core, cmake, ninja, numpy, cupy, torch,
# pytest and hypothesis. `--device cpu` rehearses the stages on the CPU, with tiny shapes.
set -euo pipefail
exec "${PYTHON:-python3}" "$(dirname "${BASH_SOURCE[0]}")/gpu/run.py" "$@"
