#!/bin/bash
# The first minutes on a GPU, what matters most first, under eight minutes in all: bash tests/bench/gpu_first.sh [FOLDER]
# Results go to FOLDER (gpu_first): logs, bench.json, the timings of the paper's experiment.
cd "$(dirname "$0")/../.." || exit 1
out=${1:-gpu_first} python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=python3
mkdir -p "$out"
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2> /dev/null || echo "no GPU: a dry run"
"$python" -c "import torch; print('torch', torch.__version__, 'cuda', torch.cuda.is_available())"

step() {  # NAME SECONDS COMMAND...
    local name=$1 limit=$2 began=$SECONDS
    shift 2
    if [ -n "$DRY" ]; then echo "$name ($limit s): $*"; return; fi
    timeout --signal=INT --kill-after=10 "$limit" "$@" > "$out/$name.log" 2>&1
    echo "$name: exit code $?, $((SECONDS - began)) s; $(tail -n 1 "$out/$name.log" | cut -c1-150)"
}

paper() { step "$1" $(($2 * 60 + 5)) "$python" tests/bench/paper_size.py --scale "$3" --minutes "$2" "output_dir=$out/runs" "data_dir=$out/data"; }
step models 60 "$python" -m pytest -q -m "not slow" tests/models tests/test_device.py  # Net_P's golden numbers too
step bench 150 "$python" tests/bench/speed.py --parts encoder,bandwidth,predict,reading --rounds 3 --json "$out/bench.json"
step train 30 "$python" -m photoz_lit experiment=smoke encoder=net_p stage=representation "output_dir=$out/runs" "data_dir=$out/data"
paper hundredth 1 0.01
step demo 45 "$python" -m photoz_lit experiment=demo stage=representation "output_dir=$out/runs" "data_dir=$out/data"
paper paper 2 1
