#!/usr/bin/env bash
# The CUDA kernels on the emulator under AddressSanitizer and UndefinedBehaviorSanitizer: the exact tests in float32.
# Arguments are pytest's, in place of these.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
preload=$(g++ -print-file-name=libasan.so):$(g++ -print-file-name=libubsan.so):$(g++ -print-file-name=libstdc++.so)
export STAPES_SIMT_MODE=asan STAPES_TEST_DEVICES=simt
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1  # the interpreter never frees everything
if [ $# -eq 0 ]; then
  set -- -q -k 'exact and float32' .
fi
LD_PRELOAD=$preload python -m pytest -p no:cacheprovider "$@"
