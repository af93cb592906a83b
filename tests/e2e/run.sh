#!/usr/bin/env bash
# End-to-end checks of the built tools in BIN: a real model, real text and real files. As many side
# by side as there are cores.
#   tests/e2e/run.sh build/bin
set -euo pipefail
bin=$(realpath "$1")
python=${PYTHON:-python3}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
checks=()
# Each check has one core, so NumPy and waiting threads must not use the others.
export OPENBLAS_NUM_THREADS=1 OMP_WAIT_POLICY=passive

# check NAME ARGUMENT...: runs tests/e2e/NAME.py in the background. Prints its last line and its
# seconds, or all lines when it fails.
check() {
    local name=$1 start
    shift
    while (($(jobs -rp | wc -l) >= $(nproc))); do sleep 0.2; done
    start=$SECONDS
    {
        if "$python" "tests/e2e/$name.py" "$@" >"$work/$name.log" 2>&1; then
            echo "$name: $(tail -1 "$work/$name.log") ($((SECONDS - start)) s)"
        else
            cat "$work/$name.log"
            echo "$name: FAILED"
            exit 1
        fi
    } &
    checks+=($!)
}

model=(data/litbank-1m data/the_tide_mill.txt)
check check_house
check check_gpu_failures --bin "$bin" # the long ones first
check check_protocols "$bin"/freqkv-replay "${model[@]}"
check check_probe "$bin"/freqkv-replay "${model[@]}"
check check_analysis --bin "$bin"
check check_link --bin "$bin"
check check_ratios --bin "$bin"
check bad_input --bin "$bin"
check bad_options --bin "$bin"
check bad_results --bin "$bin"
check check_gguf --bin "$bin"
check check_adapter --bin "$bin"
check check_mistaken --bin "$bin"
check check_contract --bin "$bin"
check check_manual --bin "$bin"
check check_texts --bin "$bin"
check check_files --bin "$bin"
check check_limits --bin "$bin"
check check_tokenizers --bin "$bin"
check check_writing --bin "$bin"
check check_cost --bin "$bin"
check check_linear --bin "$bin"
check check_lm_infinite --bin "$bin"
check check_rope_scaling --bin "$bin"
check check_selecting --bin "$bin"
check check_longheads --bin "$bin"
check check_mixed --bin "$bin" --rounds 2
check check_quant --bin "$bin"
check check_sweep "$bin"/freqkv-replay "${model[@]}"
check check_freqkv_module --bin "$bin"
check check_longbench --bin "$bin"
check check_frames --bin "$bin"
check check_needle --bin "$bin"
check check_compare --bin "$bin"
check check_bench --bin "$bin"
check check_rivals --bin "$bin"
check kill_capture --bin "$bin" --times 3
check kill_generate --bin "$bin" --times 4
"$bin"/freqkv-capture --quiet --model data/litbank-1m --text data/the_tide_mill.txt --dtype f32 \
    --states key,value,key_rotated,query --out "$work/capture"
check check_capture "$work/capture"
failed=0
for one in "${checks[@]}"; do wait "$one" || failed=1; done
((failed == 0))

# The tools start from where cmake --install puts them, too.
cmake --install build/release --prefix "$work/prefix" >/dev/null
"$work"/prefix/bin/freqkv-replay --version
ls "$work"/prefix/share/man/man1/freqkv-{capture,analyze,replay}.1 >/dev/null
tests/e2e/check_run_paths.sh "$bin" build/release/tests build/release/bench "$work"/prefix/bin
