#!/usr/bin/env bash
# All benchmarks that a GPU is needed for, in less than ten minutes on an H200.
#
#   benchmarks/gpu.sh --prepare     where packages can be fetched: wheels and samples into benchmarks/.gpu (7 MB)
#   benchmarks/gpu.sh               on the GPU machine, which needs torch and the packages in NEEDED, and no network
#   benchmarks/gpu.sh --smallest    every part at its smallest, on a CPU: a test of this script
#
# Results: $OUT, else benchmarks/results/gpu: a JSON file for each part, results.md with the tables, log.txt.
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
KIT=benchmarks/.gpu
OUT=${OUT:-benchmarks/results/gpu}
CARRIED="trl transformers datasets dill multiprocess liger-kernel"
NEEDED="torch accelerate peft huggingface_hub safetensors tokenizers pandas pyarrow pillow jinja2"

if [ "${1:-}" = --prepare ]; then
    set -e
    rm -rf "$KIT" && mkdir -p "$KIT/wheels"
    # shellcheck disable=SC2086
    "$PYTHON" -m pip download --quiet --no-deps --only-binary=:all: --python-version "${GPU_PYTHON:-3.12}" \
        --constraint constraints.txt --dest "$KIT/wheels" $CARRIED
    PYTHONPATH=. "$PYTHON" -c "
from pathlib import Path
from benchmarks.training import NUM_SCENES
from benchmarks.training_forms import save_samples
for views in (1, 4):
    save_samples(Path('$KIT/samples'), views, NUM_SCENES)"
    du -sh "$KIT"
    exit
fi

mkdir -p "$OUT"
: >"$OUT/results.md"
: >"$OUT/log.txt"
export PYTHONPATH=. PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false
SAMPLES=""
if [ -d "$KIT" ]; then
    SAMPLES="--samples $KIT/samples"
    if ! "$PYTHON" -c "import trl" 2>/dev/null; then
        SITE=$(mktemp -d)
        "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --target "$SITE" "$KIT"/wheels/*.whl || exit 1
        export PYTHONPATH="$SITE:."
    fi
fi
"$PYTHON" -c "import importlib.metadata as m; [m.version(name) for name in '$NEEDED'.split()]" || exit 1

started=$SECONDS
part() { # seconds at most, name of the result, module, arguments
    local limit=$1 name=$2 module=$3
    shift 3
    [ -z "$SMALLEST" ] || limit=600 # on however slow a CPU
    local begun=$SECONDS
    printf '## %s\n\n`python -m benchmarks.%s %s`\n\n' "$name" "$module" "$*" >>"$OUT/results.md"
    # shellcheck disable=SC2086
    timeout -k 5 "$limit" "$PYTHON" -m "benchmarks.$module" "$@" $SMALLEST --output "$OUT/$name.json" \
        >>"$OUT/results.md" 2>>"$OUT/log.txt"
    local code=$?
    [ $code -eq 0 ] || echo "Failed with exit code $code (124: cut off after $limit s)." >>"$OUT/results.md"
    printf '\n' >>"$OUT/results.md"
    echo "$name: exit code $code after $((SECONDS - begun)) s"
}

SMALLEST="" COMPILED=--compiled
[ "${1:-}" = --smallest ] && SMALLEST=--smallest COMPILED="" # which a CPU takes minutes for
# shellcheck disable=SC2086
{
    part 125 training_1.5B training --only 1.5B --seconds 15 $COMPILED $SAMPLES
    part 135 training_7B training --only 7B --seconds 25 $SAMPLES
    part 40 profile_step profile_step $SAMPLES
    part 40 scaling scaling $SAMPLES
    part 80 encoder encoder --turns 20
    part 50 feature_cache feature_cache --turns 8
    part 45 loss_head loss_head
    part 60 memory memory
}
echo "all: $((SECONDS - started)) s, in $OUT"
