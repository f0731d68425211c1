#!/usr/bin/env bash
# A piece of the miniature on one GPU, at most eight minutes; called again until nothing is left.
#
#   experiments/gpu.sh --prepare          where packages can be fetched: wheels into benchmarks/.gpu/wheels
#   experiments/gpu.sh main               on the GPU machine, which needs torch and the packages in NEEDED, no network
#   experiments/gpu.sh all                all tables, in the order of `spatialboost experiment list`
#   experiments/gpu.sh main --smallest    the same at its smallest, on a CPU: a test of this script
#
# Exit code 3: there is more to do, give the same command again. What is finished stays in outputs/experiments; finished
# tables (JSON, PNG, Markdown) are copied to $OUT as well, which defaults to experiments/results/gpu.
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
KIT=benchmarks/.gpu
MINUTES=${MINUTES:-8}
CARRIED="trl transformers datasets dill multiprocess pycocotools"
NEEDED="torch accelerate peft huggingface_hub safetensors tokenizers pandas pyarrow pillow jinja2 scipy torchmetrics matplotlib"

PIECE=${1:?pass the name of a table, or all}
if [ "$PIECE" = --prepare ]; then
    set -e
    mkdir -p "$KIT/wheels"
    # shellcheck disable=SC2086
    "$PYTHON" -m pip download --quiet --no-deps --only-binary=:all: --python-version "${GPU_PYTHON:-3.12}" \
        --constraint constraints.txt --dest "$KIT/wheels" $CARRIED
    du -sh "$KIT/wheels"
    exit
fi

PRESET=gpu
[ "${2:-}" = --smallest ] && PRESET=smallest
OUT=${OUT:-experiments/results/$PRESET}
export PYTHONPATH=. PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false
if [ -d "$KIT/wheels" ] && ! "$PYTHON" -c "import trl, pycocotools" 2>/dev/null; then
    SITE=$(mktemp -d)
    "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --target "$SITE" "$KIT"/wheels/*.whl || exit 1
    export PYTHONPATH="$SITE:."
fi
"$PYTHON" -c "import importlib.metadata as m; [m.version(name) for name in '$NEEDED'.split()]" || exit 1

# how busy the GPU is, every five seconds
mkdir -p "$OUT"
BUSY="$OUT/$PIECE.busy.txt"
command -v nvidia-smi >/dev/null && {
    nvidia-smi --query-gpu=utilization.gpu --format=csv,noheader,nounits --loop=5 >>"$BUSY" &
    trap 'kill $! 2>/dev/null' EXIT
}
# no piece of work begins after the budget; one that runs on is stopped by SIGTERM and leaves a checkpoint
timeout -k 20 "$(awk "BEGIN { print int($MINUTES * 60 + 60) }")" "$PYTHON" -m spatialboost_cli experiment "$PIECE" --preset "$PRESET" \
    --budget-minutes "$MINUTES" 2>&1 | tee "$OUT/$PIECE.log.txt" | grep -E '^(\$|\||table:|[0-9.]+ of|spatialboost)'
code=${PIPESTATUS[0]}
[ "$code" = 124 ] || [ "$code" = 143 ] && code=3
cp outputs/experiments/"$PRESET"/tables/* "$OUT"/ 2>/dev/null
[ -s "$BUSY" ] && awk '{ sum += $1 } END { printf "GPU busy: %.0f %% of %d samples\n", sum / NR, NR }' "$BUSY"
exit "$code"
