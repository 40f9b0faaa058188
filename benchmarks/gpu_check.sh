#!/usr/bin/env bash
# Run the checks that need a CUDA GPU: tests on the device, then every benchmark, within ten minutes in all.
#
#   bash benchmarks/gpu_check.sh [FOLDER] [ANNOTATIONS]
#
# CSV files go to FOLDER (default: work_dirs/gpu), failures into FOLDER/failed.txt; the script goes on after one. With ANNOTATIONS,
# a COCO instances file, the evaluation is timed too.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-work_dirs/gpu}
annotations=${2:-}
python=${PYTHON:-python}
mkdir -p "$out"
: > "$out/failed.txt"
export PYTHONPATH=$PWD

step() {  # step SECONDS NAME COMMAND...: run with a time limit, keep the output, note a failure
    local limit=$1 name=$2; shift 2
    echo "== $name"
    timeout "$limit" "$@" > "$out/$name.log" 2>&1 || { echo "$name: exit status $?" | tee -a "$out/failed.txt"; tail -n 5 "$out/$name.log"; }
}

"$python" -c 'import torch; print(torch.__version__, torch.cuda.get_device_name())' || exit 2
pair=(TiedResNet-50 TiedResNet-50-S)
cuda=(--device cuda --cudnn-benchmark)
step 150 tests "$python" -m pytest -q --device cuda -m 'not slow' tests/layers tests/plugins tests/evaluation
step 60 layers "$python" benchmarks/layers.py figure3 "${cuda[@]}" --formats channels_last --repeats 3 --csv "$out/figure3_cuda.csv"
step 120 backbones "$python" benchmarks/backbones.py "${cuda[@]}" --networks "${pair[@]}" --dtype bfloat16 --formats channels_last \
    --with-cp --csv "$out/backbones_cuda.csv"
step 150 compiled "$python" benchmarks/backbones.py "${cuda[@]}" --networks "${pair[@]}" --dtype bfloat16 --formats channels_last \
    --steps inference --deploy --compile --csv "$out/compiled_cuda.csv"
step 60 detectors "$python" benchmarks/detectors.py "${cuda[@]}" --networks "${pair[@]}" --csv "$out/detectors_cuda.csv"
if [ -n "$annotations" ]; then
    step 60 evaluation "$python" benchmarks/evaluation.py "$annotations" --device cuda --contenders mmtied --sources memory \
        --csv "$out/evaluation_cuda.csv"
fi
if [ -s "$out/failed.txt" ]; then exit 1; fi
echo "all checks passed; CSV files are in $out"
