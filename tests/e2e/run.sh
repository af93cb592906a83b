#!/usr/bin/env bash
# End-to-end checks of the built tools in BIN: what only shows when a real model, real text and real files come together.
#   tests/e2e/run.sh build/bin
set -euo pipefail
bin=$(realpath "$1")
python=${PYTHON:-python3}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" tests/e2e/check_protocols.py "$bin"/freqkv-replay data/litbank-1m data/the_tide_mill.txt
"$python" tests/e2e/check_sweep.py "$bin"/freqkv-replay data/litbank-1m data/the_tide_mill.txt
"$python" tests/e2e/check_probe.py "$bin"/freqkv-replay data/litbank-1m data/the_tide_mill.txt
"$python" tests/e2e/check_analysis.py --bin "$bin"
"$python" tests/e2e/check_ratios.py --bin "$bin"
"$python" tests/e2e/check_link.py --bin "$bin"
"$python" tests/e2e/check_freqkv_module.py --bin "$bin"
"$python" tests/e2e/bad_input.py --bin "$bin"

"$bin"/freqkv-capture --quiet --model data/litbank-1m --text data/the_tide_mill.txt --out "$work/capture" --dtype f32 \
    --states key,value,key_rotated,query
"$python" tests/e2e/check_capture.py "$work/capture"
"$python" tests/e2e/kill_capture.py --bin "$bin" --times 3

# The tools start from where cmake --install puts them, too.
cmake --install build/release --prefix "$work/prefix" >/dev/null
"$work"/prefix/bin/freqkv-replay --version
