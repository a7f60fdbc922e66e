#!/usr/bin/env bash
# Benchmarks of a GPU machine whose python3 has torch, triton, numpy, pytest and pytest-benchmark; installs nothing.
# usage: [OUT=folder] bash benchmarks/gpu.sh [loss|configuration|networks|step]
#   loss      the GPU tests, then the losses (default)
#   configuration  alternatives to the launch table of the Triton backend
#   networks  a training step of every network, with and without GSS, and the predictions for 15 subsets
#   step      the engine's whole training step by preset, from crops in memory to changed weights
# Takes less than 8 minutes and writes one JSON file, <card>-<what>.json, into $OUT (benchmarks/results by default):
# also if tests or benchmarks fail, or time is short; the exit status is 1 then.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
what=${1:-loss}
out=${OUT:-benchmarks/results}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export GSS_KERNELS_CACHE=${GSS_KERNELS_CACHE:-off} # the launch table as shipped, unless told otherwise

# Seconds since the start of the script: the tests are interrupted, no benchmark begins, the benchmarks are interrupted.
tests_end=180 last_benchmark=405 benchmarks_end=450

case $what in
    loss) selection=(benchmarks/test_loss.py benchmarks/test_segmentation_loss.py benchmarks/test_objective.py) ;;
    configuration) selection=(benchmarks/test_configuration.py) ;;
    networks) selection=(benchmarks/test_network_step.py benchmarks/test_subsets.py) ;;
    step) selection=(benchmarks/test_training_step.py) ;;
    *) echo "gpu.sh: got '$what', need loss, configuration, networks or step" >&2; exit 2 ;;
esac

card=$(python3 -c '
import re, torch
if torch.cuda.is_available():
    print(re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-"))') || exit 2
if [ -z "$card" ]; then
    echo "gpu.sh: torch sees no GPU here; the benchmarks of a CPU are: pytest benchmarks/ --benchmark-only" >&2
    exit 2
fi
GPU_DRIVER=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1)
COMMIT=${COMMIT:-$(git rev-parse HEAD 2>/dev/null)}
export GPU_DRIVER=${GPU_DRIVER:-unknown} COMMIT
scratch=$(mktemp -d) || exit 2
trap 'rm -rf "$scratch"' EXIT
status=0

# run NAME END COMMAND...: until second END, and notes the exit status. One interrupt (the foreground option keeps it from
# coming twice) lets pytest still write its reports.
run() {
    local name=$1 end=$2 code=0
    shift 2
    timeout --foreground --signal=INT --kill-after=15 "$((end - SECONDS))" "$@" || code=$?
    echo "$code" >"$scratch/$name.status"
    echo "gpu.sh: second $SECONDS, the $name are over with status $code"
    [ "$code" = 0 ] || status=1
}

# Most of the tests' time goes into compiling: several processes, if there is xdist and the card lets them in.
parallel=()
if [ "$(nvidia-smi --query-gpu=compute_mode --format=csv,noheader 2>/dev/null | head -n 1)" = Default ] &&
    python3 -c 'import xdist' 2>/dev/null; then
    processes=$(nproc)
    parallel=(-n "$((processes < 8 ? processes : 8))")
fi

if [ "$what" = loss ]; then
    echo "gpu.sh: tests until second $tests_end at most, then about 4 minutes of benchmarks, all over by second $benchmarks_end"
    run tests "$tests_end" python3 -m pytest tests/gpu -W default -p no:benchmark -p no:cacheprovider \
        "${parallel[@]}" --junitxml="$scratch/tests.xml"
fi
run benchmarks "$benchmarks_end" python3 -m pytest "${selection[@]}" --benchmark-only -p no:cacheprovider \
    --benchmark-time-limit="$((last_benchmark - SECONDS))" --benchmark-columns=min,median,rounds \
    --benchmark-json="$scratch/benchmarks.json" --junitxml="$scratch/benchmarks.xml"

if mkdir -p "$out" && python3 -m benchmarks.collect_results "$scratch" --what "$what" --out "$out/$card-$what.json"; then
    echo "gpu.sh: second $SECONDS, written: $out/$card-$what.json"
else
    status=1
fi
exit "$status"
