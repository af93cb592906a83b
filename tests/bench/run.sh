#!/usr/bin/env bash
# Every benchmark, each with its rival in the same run. Needs an idle machine, 4 GB of disk under
# $TMPDIR and a Python with numpy, scipy and h5py ($PYTHON, default python3). Takes about five
# minutes on two cores.
#   ./run build && tests/bench/run.sh build/release
set -euo pipefail
build=$(realpath "$1")
python=${PYTHON:-python3}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT-2000} # as the tools set it for themselves

say() { printf '\n== %s\n' "$*"; }

say "machine"
grep -m1 'model name' /proc/cpuinfo || true
echo "$(nproc) cores, load $(cut -d' ' -f1 /proc/loadavg)"
say "prefill products against plain sgemm"
"$build"/bench/bench_matmul
say "decode products against read bandwidth"
"$build"/bench/bench_decode
say "attention: prefill against plain sgemm, decode against read bandwidth"
"$build"/bench/bench_attend
say "a 500M-parameter bf16 model: decode against read bandwidth, prefill against sgemm"
"$python" tests/bench/make_checkpoint.py "$work/checkpoint" >/dev/null
"$build"/bench/bench_session "$work/checkpoint"
rm -r "$work/checkpoint"
say "one compression against FFTW's own DCT"
"$build"/bench/bench_compress
say "capture against plain prefill: the embedded model, and one of 60M parameters"
"$build"/bench/bench_capture data/litbank-1m 16
"$python" tests/bench/make_checkpoint.py "$work/small" --layers 8 --dim 768 --hidden 2048 \
    --heads 12 --kv-heads 12 --vocab 4096 >/dev/null
"$build"/bench/bench_capture "$work/small" 2
say "analyze spectrum and error against numpy, scipy and h5py"
for command in spectrum error; do
    "$python" tests/bench/analyze/bench_spectrum.py "$(dirname "$build")"/bin/freqkv-analyze \
        --command $command
done
