#!/usr/bin/env bash
# One end-to-end run of every tool under valgrind: no invalid access, nothing leaked, no use of uninitialised memory. Threads are kept to one
# (valgrind serialises them) and the text short.
#   tests/e2e/valgrind.sh build/bin
set -euo pipefail
bin=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
head -c 4000 data/the_tide_mill.txt >"$work/text.txt"

check() {
    echo "valgrind: $*" | sed "s|$bin/||; s|$work/||g"
    OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 OPENBLAS_CORETYPE=Haswell valgrind --quiet --error-exitcode=99 --leak-check=full \
        --errors-for-leak-kinds=definite --suppressions=tests/e2e/valgrind.supp "$@" >"$work/out" 2>"$work/log" || {
        cat "$work/log"
        exit 1
    }
}

model=(--model data/litbank-1m --threads 1 --quiet)
check "$bin"/freqkv-capture "${model[@]}" --text "$work/text.txt" --out "$work/capture" --max-tokens 300
check "$bin"/freqkv-analyze spectrum "$work/capture" --out "$work/analysis" --length 128 --null permute
check "$bin"/freqkv-analyze error "$work/capture" --out "$work/analysis" --length 128
check "$bin"/freqkv-replay ppl "${model[@]}" --text "$work/text.txt" --policy freqkv --window 128 --tokens 400 \
    --baseline full --out "$work/run.h5"
check "$bin"/freqkv-replay generate "${model[@]}" --prompt "The tide came up" --tokens 20 --policy local --window 16
check "$bin"/freqkv-replay tokens --model data/litbank-1m --text "$work/text.txt"
