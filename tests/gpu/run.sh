#!/usr/bin/env bash
# The CUDA backend on a GPU, from a clean checkout, without network. Needs nvcc 12 or newer, CMake, ninja, gcc and g++; the benchmark a Python with PyTorch and transformers.
# Libraries come from tests/gpu/packages, fetched beforehand where there is a network (packages.sh), or else from the system.
#
#   tests/gpu/run.sh [STAGE...]      all of them in this order, when none is named
#     build      kernels, engine, tools and the CUDA module, with plain C in place of FFTW and OpenBLAS
#     test       every kernel against the double-precision reference, in float32 and in bf16 products; the engine's unit tests on CUDA
#     compare    logits, perplexity, keys and values against the CPU; block sizes, decoding, documents side by side, snapshots; whole captures
#     memcheck   compute-sanitizer over the kernels' tests at small sizes
#     racecheck  the same, looking for races
#     bench      tests/bench/gpu: beside PyTorch and the machine's limits
#
# Every check is a line; a failed one shows the end of its output and the rest goes on. Whole outputs are in OUT/STAGE.log.
# OUT: folder for results (tests/gpu/results). BUILD: build folder (build/gpu). PYTHON (python3). BENCH: arguments for bench.py.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
out=${OUT:-tests/gpu/results} build=${BUILD:-build/gpu} python=${PYTHON:-python3}
mkdir -p "$out" "$build"
out=$(realpath "$out") build=$(realpath "$build")
passed=0 failed=()
export FKV_CUDA_MODULE=${FKV_CUDA_MODULE:-$build/bin/freqkv-cuda.so}

say() { printf '\n== %s\n' "$*"; }

# check NAME LIMIT COMMAND...: LIMIT seconds, output to the stage's log.
check() {
    local name=$1 limit=$2 started=$SECONDS status
    shift 2
    printf '\n== %s: %s\n' "$name" "$*" >>"$out/$stage.log"
    timeout "$limit" "$@" >"$out/.now" 2>&1
    status=$?
    cat "$out/.now" >>"$out/$stage.log"
    if ((status == 0)); then
        ((passed++))
        echo "ok      $name ($((SECONDS - started)) s)"
    else
        failed+=("$stage: $name")
        echo "FAILED  $name (status $status, $((SECONDS - started)) s)"
        tail -n 25 "$out/.now" | cut -c1-300 | sed 's/^/    /'
    fi
    rm -f "$out/.now"
}

# Points CMake at tests/gpu/packages: pkg-config runs from there too, and programs find the libraries where they lie.
configure() {
    local flags=(-G Ninja -DCMAKE_BUILD_TYPE=Release -DFKV_PLAIN=ON -DFKV_CUDA=ON)
    local packages=$PWD/tests/gpu/packages libraries
    if [[ -d $packages ]]; then
        libraries=$(dirname "$(find "$packages/usr/lib" -name libjansson.so)")
        cat >"$build/pkg-config" <<END
#!/bin/sh
export LD_LIBRARY_PATH=$libraries PKG_CONFIG_LIBDIR=$libraries/pkgconfig PKG_CONFIG_SYSROOT_DIR=$packages
exec $packages/usr/bin/pkgconf "\$@"
END
        chmod +x "$build/pkg-config"
        flags+=(-DPKG_CONFIG_EXECUTABLE="$build/pkg-config"
            -DCMAKE_EXE_LINKER_FLAGS="-Wl,--disable-new-dtags,-rpath,$libraries,-rpath-link,$libraries")
    fi
    cmake -S . -B "$build" "${flags[@]}"
}

stage_build() {
    check "configure" 120 bash -c "$(declare -f configure); build=$build; configure"
    check "compile" 560 cmake --build "$build" -- -k 0
}

# Tests that ask for the backend under test, by the file that does.
tests_that_use() { grep -lE "$1" "${@:2}" | xargs -rn1 basename -s .c | sort; }
mapfile -t kernel_tests < <(tests_that_use backend_support.h tests/unit/kernels/test_*.c)
mapfile -t engine_tests < <(tests_that_use 'FKV_TEST_BACKEND|engine/sequences.h' tests/unit/*/test_*.c)

stage_test() {
    local name compute
    for name in "${kernel_tests[@]}"; do
        check "$name, plain C on the CPU" 120 "$build/tests/$name"
    done
    for compute in f32 bf16; do
        for name in "${kernel_tests[@]}"; do
            check "$name, products in $compute" 200 env FKV_TEST_BACKEND=cuda FKV_TEST_COMPUTE=$compute "$build/tests/$name"
        done
    done
    for name in "${engine_tests[@]}"; do
        check "$name" 200 env FKV_TEST_BACKEND=cuda "$build/tests/$name"
    done
}

stage_compare() {
    local compare=$build/tests/compare_backends model embedded
    embedded=$(dirname data/*/tokenizer.json)
    local text=(--text data/the_tide_mill.txt --model "$embedded" --tokens 1000)
    check "embedded model, float32" 200 "$compare" "${text[@]}" cpu cuda
    check "embedded model, products in bf16" 200 "$compare" "${text[@]}" --compute bf16 cpu cuda
    check "embedded model, products and cache in bf16" 200 "$compare" "${text[@]}" --compute bf16 --cache-dtype bf16 cpu cuda
    check "embedded model, cache in f16" 200 "$compare" "${text[@]}" --cache-dtype f16 cpu cuda
    for model in tests/golden/*/config.json; do
        model=$(dirname "$model")
        check "$(basename "$model"), float32" 60 "$compare" --model "$model" --tokens 96 cpu cuda
        check "$(basename "$model"), products in bf16" 60 "$compare" --model "$model" --tokens 96 --compute bf16 --slack 4 cpu cuda
    done
    if [[ -x $build/bin/freqkv-capture ]]; then
        check "captures and spectra on both backends" 200 "$python" tests/gpu/compare_captures.py "$build/bin/freqkv-capture" "$embedded" data/the_tide_mill.txt
    fi
}

# Small cases only: a sanitizer is some hundred times slower.
sanitize() {
    local tool=$1 name compute
    if ! command -v compute-sanitizer >/dev/null; then
        echo "skipped: there is no compute-sanitizer here"
        return
    fi
    for name in "${kernel_tests[@]}"; do
        for compute in f32 bf16; do
            # Only products and attention have a way of their own in bf16.
            [[ $compute == bf16 && ! $name =~ attend|layer ]] && continue
            check "$tool: $name, products in $compute" 150 env FKV_TEST_SMALL=1 FKV_TEST_BACKEND=cuda FKV_TEST_COMPUTE=$compute \
                compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 20 "$build/tests/$name"
        done
    done
    check "$tool: a small model, decoding through graphs" 280 compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 20 \
        "$build/tests/compare_backends" --model tests/golden/llama-gqa-tied --tokens 64 cpu cuda
}
stage_memcheck() { sanitize memcheck; }
stage_racecheck() { sanitize racecheck; }

stage_bench() {
    local compress=$build/bench/bench_compress_cuda
    [[ -x $compress ]] && check "ways to compress" 120 "$compress" && sed -n '/ways to compress/,$p' "$out/bench.log"
    # shellcheck disable=SC2086
    check "beside PyTorch" 590 "$python" tests/bench/gpu/bench.py --build "$build" --out "$out" ${BENCH:-}
    for table in "$out"/bench-*.md; do [[ -f $table ]] && cat "$table"; done
}

stages=("$@")
((${#stages[@]})) || stages=(build test compare memcheck racecheck bench)
for stage in "${stages[@]}"; do
    if ! declare -F "stage_$stage" >/dev/null; then
        echo "stages: build, test, compare, memcheck, racecheck, bench; found $stage" >&2
        exit 2
    fi
done
say "machine"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "nvidia-smi finds no GPU"
command -v nvcc >/dev/null && nvcc --version | sed -n 's/^Cuda compilation tools, //p'
grep -m1 'model name' /proc/cpuinfo | sed 's/.*: //'
for stage in "${stages[@]}"; do
    say "$stage"
    : >"$out/$stage.log"
    "stage_$stage"
done
say "summary"
{
    echo "$passed passed, ${#failed[@]} failed"
    ((${#failed[@]})) && printf 'FAILED  %s\n' "${failed[@]}"
} | tee "$out/summary.txt"
((${#failed[@]} == 0))
