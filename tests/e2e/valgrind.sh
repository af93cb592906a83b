#!/usr/bin/env bash
# One end-to-end run of every command under valgrind: no invalid access, nothing leaked, no use of
# uninitialised memory. One thread, because valgrind serialises them, and a short text.
#   tests/e2e/valgrind.sh build/bin
set -euo pipefail
bin=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/texts"
head -c 1500 data/the_tide_mill.txt >"$work/text.txt"
head -c 1500 data/the_tide_mill.txt >"$work/texts/a.txt"
tail -c 1500 data/the_tide_mill.txt >"$work/texts/b.txt"

check() {
    echo "valgrind: $*" | sed "s|$bin/||; s|$work/||g"
    OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 OPENBLAS_CORETYPE=Haswell \
        valgrind --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite \
        --suppressions=tests/e2e/valgrind.supp "$@" >"$work/out" 2>"$work/log" || {
        cat "$work/log"
        exit 1
    }
}

model=(--model data/litbank-1m --threads 1 --quiet)
texts=("${model[@]}" --text "$work/text.txt")
ppl=(ppl "${texts[@]}" --policy freqkv --window 132 --tokens 160)
printf '{"prompt": "The tide came up"}\n{"prompt": "A boat"}\n{"prompt": "At"}\n' \
    >"$work/prompts.jsonl"

capture() { check "$bin"/freqkv-capture "$@"; }
analyze() { check "$bin"/freqkv-analyze "$@"; }
replay() { check "$bin"/freqkv-replay "$@"; }

capture "${texts[@]}" --out "$work/capture" --max-tokens 250 --states key,value,query
for shard in 0 1; do
    capture "${model[@]}" --text "$work/texts" --out "$work/sums/$shard" --spectra-only \
        --length 128 --shard $shard/2
done
analyze merge "$work/sums/0" "$work/sums/1" --out "$work/sums/both"
analyze spectrum "$work/sums/both" --out "$work/merged"
analyze spectrum "$work/capture" --out "$work/analysis" --length 128 --null permute
analyze error "$work/capture" --out "$work/analysis" --length 128 --bounds
analyze gamma "$work/capture" --out "$work/analysis" --length 128 --budget 0.5 \
    --objective attention
analyze impulse --out "$work/analysis" --window 64 --gamma 0.5
sweep=("${ppl[@]}" --baseline full --sweep gamma=0.25:0.75:0.25 --out "$work/runs")
replay "${sweep[@]}"
rm "$work/runs/gamma_0.75.h5"
replay "${sweep[@]}" --json # computes the missing one
replay "${ppl[@]}" --gamma "@$work/analysis/gamma.json" --protocol stride:50 --mass-bias \
    --batch 2 --out "$work/run.h5"
probe=(probe "${texts[@]}" --prefix 100 --score 20)
replay "${probe[@]}" --blocks 2 --bands 2 --noise 0:0.5:0.1 --decompose 0.5 --local 0.5 \
    --out "$work/probe.h5"
replay "${probe[@]}" --filter 0:0.5 --per-head --out "$work/heads.h5"
analyze link --capture "$work/capture" --runs "$work"/runs/*.h5 --probes "$work/heads.h5" \
    --out "$work/analysis"
analyze plot "$work"/runs/*.h5 "$work/probe.h5" "$work/heads.h5" --out "$work/analysis"
analyze plot "$work/analysis/impulse.csv" --out "$work/figures"
analyze report "$work/analysis"
replay generate "${model[@]}" --prompt "The tide came up" --tokens 20 --policy local --window 16
answers=(generate "${model[@]}" --prompts "$work/prompts.jsonl" --batch 2 --tokens 20
    --temperature 0.8 --policy streaming --window 16 --out "$work/answers.jsonl")
replay "${answers[@]}"
truncate -s -9 "$work/answers.jsonl" # the last line is torn
replay "${answers[@]}" --resume --json
rivals=(compare "${texts[@]}" --policies freqkv:recent=4,streaming --budget 40 --tokens 120
    --recall 1 --passage 8 --out "$work/rivals")
replay "${rivals[@]}"
rm "$work/rivals/streaming_40.h5"
replay "${rivals[@]}" --json # computes the missing one
analyze plot "$work/rivals/compare.csv" "$work"/rivals/*.h5 --out "$work/against_bytes"
replay tokens --model data/litbank-1m --text "$work/text.txt"
