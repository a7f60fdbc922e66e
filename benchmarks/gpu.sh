#!/usr/bin/env bash
# Benchmarks of a GPU machine with torch, triton, numpy, pytest and pytest-benchmark; installs nothing.
# usage: [OUT=folder] bash benchmarks/gpu.sh [loss|networks|step]
#   loss      the GPU tests, then the loss (default)
#   networks  a training step of every network, with and without GSS
#   step      the same for RFNet alone
# Writes one JSON file, <card>-<what>.json, into $OUT (benchmarks/results by default).
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-loss}
out=${OUT:-benchmarks/results}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

case $what in
    loss) selection=(benchmarks/test_loss.py) ;;
    networks) selection=(benchmarks/test_network_step.py) ;;
    step) selection=(benchmarks/test_network_step.py -k rfnet) ;;
    *) echo "gpu.sh: got '$what', need loss, networks or step" >&2; exit 2 ;;
esac

card=$(python3 -c '
import re, torch
if torch.cuda.is_available():
    print(re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-"))')
if [ -z "$card" ]; then
    echo "gpu.sh: torch sees no GPU here; the benchmarks of a CPU are: pytest benchmarks/ --benchmark-only" >&2
    exit 1
fi
GPU_DRIVER=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1 || true)
export GPU_DRIVER=${GPU_DRIVER:-unknown}

if [ "$what" = loss ] && compgen -G 'tests/gpu/test_*.py' >/dev/null; then
    python3 -m pytest tests/gpu
fi
mkdir -p "$out"
python3 -m pytest "${selection[@]}" --benchmark-only --benchmark-json="$out/$card-$what.json"
echo "written: $out/$card-$what.json"
