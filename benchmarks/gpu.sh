#!/usr/bin/env bash
# Benchmarks of a machine with a GPU; installs nothing. Its python3 needs torch, triton, numpy, pytest and
# pytest-benchmark, and pytest-xdist for the tests on all cores. All options and what is done: benchmarks/stages.py.
# usage: [OUT=folder] bash benchmarks/gpu.sh [loss|configuration|networks|step|train] [--minutes 9] [--dry-run] ...
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH=$repository${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
exec python3 -m benchmarks.stages "$@"
