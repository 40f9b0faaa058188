#!/usr/bin/env bash
# Check and measure mmtied on a machine with a GPU, within nine minutes and without a network.
#
#   bash benchmarks/gpu_check.sh --collect WHEELS      # once, elsewhere: download what the machine lacks (13 MB)
#   OUT=results bash benchmarks/gpu_check.sh WHEELS    # on the machine with the GPU
#   bash benchmarks/gpu_check.sh --smoke [WHEELS]      # tiny sizes, on a CPU where there is no GPU
#
# The machine needs Python, PyTorch with torchvision, NumPy, SciPy, OpenCV, matplotlib, pytest, hypothesis, ninja, and nvcc for
# mmcv's operators. --collect runs pip for the Python that calls it, so use the machine's version: PYTHON=python3.12, with PyTorch.
# WHEELS is left out where everything is installed.
#
# mmcv's operators are compiled in the background, for this GPU alone. Meanwhile the layers are tested in three precisions and the
# evaluation is compared with pycocotools; then layers, backbones and evaluation are timed, and with the operators, detectors.
# Every part has a time limit, and one that fails does not stop the next. OUT (default: work_dirs/gpu) gets at once:
#
#   summary.md    a line for every part: ok, failed, timed out or skipped, and its seconds
#   log.txt       what the parts printed, tables included
#   csv.tar.gz    the rows of every benchmark, and the machine in runs.csv
#
# PYTHON is the interpreter (default: python3), TOTAL the seconds in all (530), JOBS the compiler's processes (all cores but 4).
# On a CPU all limits are four times as long.
set -uo pipefail
python=${PYTHON:-python3}
out=$(realpath -m "${OUT:-work_dirs/gpu}")
mode='' wheels=''
for argument in "$@"; do
    case $argument in
        --smoke | --collect) mode=$argument ;;
        -*) echo "error: $argument: expected --smoke, --collect or a folder of wheels" >&2; exit 2 ;;
        *) wheels=$(realpath -m "$argument") ;;
    esac
done
cd "$(dirname "$0")/.." || exit 2
pip=("$python" -m pip --disable-pip-version-check)

if [ "$mode" = --collect ]; then
    if [ -z "$wheels" ]; then echo 'error: --collect needs a folder to put the wheels in' >&2; exit 2; fi
    "${pip[@]}" wheel --quiet --no-deps --wheel-dir "$wheels" -r benchmarks/gpu_wheels.txt && "${pip[@]}" download --quiet --no-deps \
        --no-build-isolation --no-binary=:all: --dest "$wheels" -r requirements/onedl/mmcv.txt && du -sh "$wheels"
    exit
fi
if [ -n "$wheels" ] && ! ls "$wheels"/*.whl > /dev/null 2>&1; then
    echo "error: $wheels has no wheels; make it with bash benchmarks/gpu_check.sh --collect FOLDER" >&2; exit 2
fi

work=$(mktemp -d)
site=$work/site mmcv=$work/mmcv
csv=$work/csv
mkdir -p "$out" "$mmcv" "$csv"
printf '| part | result | seconds |\n|---|---|---:|\n' > "$out/summary.md"
: > "$out/log.txt"
export PYTHONPATH=$PWD:$site:$mmcv${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore PIP_NO_INDEX=1
reserved=0 failures=0 compiler=''
trap '[ -z "$compiler" ] || kill -- -"$compiler" 2> /dev/null; rm -rf "$work"' EXIT

note() {  # note NAME RESULT SECONDS: add a line to the summary
    echo "| $1 | $2 | $3 |" >> "$out/summary.md"
    echo "== $1: $2, $3 s"
    case $2 in failed* | timed*) failures=$((failures + 1)) ;; esac
}

outcome() {  # outcome STATUS LIMIT: say what an exit status means
    case $1 in
        0) echo ok ;;
        124 | 137) echo "timed out after $2 s" ;;
        *) echo "failed with exit status $1" ;;
    esac
}

part() {  # part SECONDS NAME COMMAND...: run with a time limit, within what is left but for the reserved seconds
    local limit=$(($1 * patience)) name=$2 start=$SECONDS left=$((total - reserved - SECONDS)) status=0
    shift 2
    if ((left < limit)); then limit=$left; fi
    if ((limit < 5)); then note "$name" 'skipped: no time left' 0; return 1; fi
    printf '\n==== %s\n' "$name" >> "$out/log.txt"
    timeout --kill-after=5 "$limit" "$@" >> "$out/log.txt" 2>&1 || status=$?
    if [ $status != 0 ]; then tail -n 3 "$out/log.txt" | cut -c 1-300; fi
    note "$name" "$(outcome $status "$limit")" $((SECONDS - start))
    tar -czf "$out/csv.tar.gz" -C "$work" csv
    return $status
}

compile_mmcv() {  # compile the operators in place, with the C++ compiler that precompiles mmcv's header
    local gxx=$work/bin/g++ jobs=${JOBS:-$(($(nproc) > 5 ? $(nproc) - 4 : 1))} start=$SECONDS limit=$((total - 110)) status=0
    mkdir -p "$work/bin"
    printf '#!/bin/sh\nexec %q %q %q "$@"\n' "$(command -v "$python")" "$PWD/requirements/precompiled_header.py" \
        "$(command -v g++)" > "$gxx"
    chmod +x "$gxx"
    cd "$mmcv" || return
    if [ "$capability" != cpu ]; then  # headers that the toolkit may lack come with torch
        export FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST=$capability
        CPATH=$("$python" -c 'import glob, torch; print(*glob.glob(torch.__path__[0] + "/../nvidia/*/include"), sep=":")')
        export CPATH
    fi
    MMCV_WITH_OPS=1 MAX_JOBS=$jobs CFLAGS=-g0 CXX=$gxx timeout --kill-after=5 $limit nice -n 10 \
        "$python" setup.py build_ext --inplace > "$work/mmcv.log" 2>&1 || status=$?
    echo "$((SECONDS - start)) $(outcome $status $limit)" > "$work/mmcv.done"
}

capability=$("$python" -c 'import torch
print(*torch.cuda.get_device_capability() if torch.cuda.is_available() else ["cpu"], sep=".")')
if [ -z "$capability" ]; then echo "error: $python has no working torch; name another with PYTHON=" >&2; exit 2; fi
if [ "$capability" = cpu ] && [ "$mode" != --smoke ]; then mode=--smoke; echo 'torch sees no GPU: tiny sizes on the CPU'; fi
device=cuda patience=1
if [ "$capability" = cpu ]; then device=cpu patience=4; fi
total=${TOTAL:-$((530 * patience))}

if [ -n "$wheels" ]; then
    tar -xzf "$wheels"/onedl_mmcv-*.tar.gz -C "$mmcv" --strip-components 1 --no-same-owner
    set -m  # the compiler in a process group of its own, so that all of it can be stopped
    compile_mmcv & compiler=$!
    set +m
    part 90 install "${pip[@]}" install --quiet --no-deps --no-compile --upgrade --target "$site" "$wheels"/*.whl
fi

pytest=("$python" -m pytest -q -p no:cacheprovider -m 'not slow' --device "$device")
timing=(--device "$device" --repeats 3 --least-ms 5)
fast=(--dtype bfloat16 --formats channels_last)
amounts=(--images 200 --detections 6000)
many=(--images 5000 --detections 100000 --repeats 1)
graphs=(--cuda-graphs) layers=(shapes --batch 4) shapes=(--images 64 --val-images 32) tests=() batch=64
if [ "$mode" = --smoke ]; then
    timing=(--device "$device" --quick --repeats 1) graphs=() layers=(figure3 --kernels 1) shapes=(--images 8 --val-images 2) batch=2
    amounts=(--images 10 --detections 100) many=(--images 10 --detections 100 --replicates 10) tests=(-k 'TGC and match')
    if [ "$device" = cuda ]; then graphs=(--cuda-graphs); fi
fi
pair=(--networks TiedResNet-50 TiedResNet-50-S) small=(--networks TiedResNet-50-S)

reserved=100
part 90 'layer tests' "${pytest[@]}" "${tests[@]}" tests/layers/test_on_device.py tests/layers/test_tied_conv.py
part 50 'evaluation equals pycocotools' "$python" benchmarks/gpu_parts.py equality --device "$device" "${amounts[@]}"
part 50 'evaluation tests' "${pytest[@]}" -k 'gpu or device or tensors' tests/evaluation/test_metric.py \
    tests/evaluation/test_weighted_ap.py tests/evaluation/test_comparison.py tests/evaluation/inputs/test_tensor_results.py
part 50 'evaluation and intervals' "$python" benchmarks/gpu_parts.py intervals --device "$device" "${many[@]}" \
    --csv "$csv/intervals_cuda.csv"
part 80 layers "$python" benchmarks/layers.py "${layers[@]}" "${timing[@]}" "${fast[@]}" --csv "$csv/layers_cuda.csv"
part 70 'backbones, AMP' "$python" benchmarks/backbones.py "${timing[@]}" "${fast[@]}" "${pair[@]}" "${graphs[@]}" --cudnn-benchmark --deploy \
    --batch $batch --csv "$csv/backbones_cuda.csv"
part 45 'backbones, float32' "$python" benchmarks/backbones.py "${timing[@]}" "${pair[@]}" --formats channels_last --batch $batch \
    --csv "$csv/float32_cuda.csv"
part 110 'compiled inference' "$python" benchmarks/backbones.py "${timing[@]}" "${fast[@]}" "${pair[@]}" --steps inference --compile \
    --batch $batch --csv "$csv/compiled_cuda.csv"

reserved=0
if [ -n "$compiler" ]; then
    while kill -0 "$compiler" 2> /dev/null && ((SECONDS < total - 100)); do sleep 1; done
    if [ -e "$work/mmcv.done" ]; then read -r seconds result < "$work/mmcv.done"; else seconds=$SECONDS result='timed out'; fi
    note 'mmcv with its operators (background)' "$result" "$seconds"
    { printf '\n==== mmcv\n'; tail -n 15 "$work/mmcv.log" | cut -c 1-600; } >> "$out/log.txt"
    if [ "$result" != ok ]; then kill -- -"$compiler" 2> /dev/null; fi
    compiler=''
fi
if "$python" -c 'import torch, mmcv._ext' 2> /dev/null; then
    part 60 'Mask R-CNN steps' "$python" benchmarks/detectors.py "${timing[@]}" "${small[@]}" --csv "$csv/detectors_cuda.csv"
    data=$work/shapes
    part 30 'data for training' "$python" tools/make_occluded_shapes.py "$data" "${shapes[@]}" && part 60 'training and val loop' \
        "$python" tools/train.py configs/demo/mask_rcnn_tiedr50_demo.py --work-dir "$work/train" --cfg-options \
        "train_dataloader.dataset.data_root=$data/" "val_dataloader.dataset.data_root=$data/" \
        "val_evaluator.ann_file=$data/annotations/instances_val2017.json" train_cfg.max_epochs=1 train_cfg.val_interval=1
else
    note 'Mask R-CNN steps' 'skipped: no mmcv._ext' 0
    note 'training and val loop' 'skipped: no mmcv._ext' 0
fi
part 150 'compiled training' "$python" benchmarks/backbones.py "${timing[@]}" "${fast[@]}" "${small[@]}" --steps training --compile \
    --batch $batch --csv "$csv/compiled_training_cuda.csv"

echo
cat "$out/summary.md"
echo "$SECONDS s in all; results are in $out"
((failures == 0))
