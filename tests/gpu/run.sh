#!/usr/bin/env bash
# The CUDA backend on a GPU, from a clean checkout, without network: built, tested and timed in this
# order, as far as LIMIT seconds allow. The same command again goes on where the first stopped.
# Needs nvcc 12 or newer, CMake, ninja, gcc and g++; the benchmark a Python with PyTorch and transformers.
# Libraries come from tests/gpu/packages, which tests/gpu/packages.sh fetches where there is a
# network, or else from the system.
#
#   tests/gpu/run.sh             everything that is not done yet
#   tests/gpu/run.sh STAGE...    these, done or not, after `build`
#
# Stages, and how long they take (estimates for one H200 and 16 cores; "core": measured on a CPU):
#   build       60 s   kernels, engine, tools and the CUDA module for this GPU, in plain C
#                      (100 s of a core for one architecture)
#   test        40 s   every kernel against the double-precision reference, in float32 and in bf16
#                      products; the engine's unit tests on CUDA (5 s of a core per test)
#   compare     60 s   logits, perplexity, keys and values against the CPU; block sizes, decoding,
#                      snapshots; whole captures (15 s of a core for the embedded model, four times)
#   bench      180 s   LLaMA-2-7B's shape with PyTorch and the machine's limits: prefill, decode,
#                      compression, capture (20 s to write 13.5 GB, 5 s to read it each time, 90 s
#                      for PyTorch's compiled decode)
#   memcheck   240 s   compute-sanitizer over the kernels' tests at small sizes, some hundred times
#                      slower than the tests
#   racecheck  240 s   the same for races
#   methods     60 s   the three ways to compress, at the sizes where kernels/cuda/compress.cu
#                      chooses
#   lengths    120 s   FreqKV against full cache from 4K to 64K tokens
#   llama-3-8b 300 s   `bench` and `lengths` with Llama-3-8B's shape
#
# A stage starts when the seconds in `needs` (below) are left; what it cannot end is left for the
# next call. Every check is a line; a failed one shows the end of its output, and the rest goes on.
# The last thing printed is the summary, which is also OUT/summary.txt; OUT/results.tar.gz has it,
# every log and every measurement (below 16 MiB), and is there after each stage.
#
#   OUT     folder for these two (tests/gpu/results)
#   LIMIT   seconds (580)
#   BUILD   build folder, which also records what is done (build/gpu)
#   PYTHON  (python3)
#   JOBS    checks at once on the GPU (half the cores, 6 at most; what is timed runs alone)
#   ONLY    a regular expression: checks whose "STAGE: NAME" it does not match are left out
#   BENCH   further arguments for bench.py
#
# At most 35 GB of host memory and 22 GB of /dev/shm or disk are used.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
all=(build test compare bench memcheck racecheck methods lengths llama-3-8b)
declare -A needs=([build]=0 [test]=30 [compare]=30 [bench]=60 [memcheck]=60 [racecheck]=60
    [methods]=20 [lengths]=60 [llama-3-8b]=60)
out=${OUT:-tests/gpu/results} build=${BUILD:-build/gpu} python=${PYTHON:-python3} only=${ONLY:-}
packages=$PWD/tests/gpu/packages
end=$((${LIMIT:-580} - 10)) # seconds to pack and print
cores=$(nproc)
most=${JOBS:-$((cores < 4 ? 1 : cores > 12 ? 6 : cores / 2))}
mkdir -p "$out" "$build/results/checks"
out=$(realpath "$out") build=$(realpath "$build") results=$(realpath "$build/results")
export FKV_CUDA_MODULE=${FKV_CUDA_MODULE:-$build/bin/freqkv-cuda.so}
# Installers put nvcc and compute-sanitizer here, on the PATH or not.
for folder in /usr/local/cuda/bin /usr/local/cuda/compute-sanitizer; do
    [[ -d $folder ]] && PATH=$PATH:$folder
done

say() { printf '\n== %s\n' "$*"; }
left() { echo $((end - SECONDS)); }

# ---- checks ----
# check NAME SECONDS COMMAND...: runs COMMAND in the background for SECONDS at most, with at most
# `together` checks at once.
check() {
    local name=$1 seconds=$2
    shift 2
    [[ "$stage: $name" =~ $only ]] || return 0
    while (($(jobs -rp | wc -l) >= together)); do wait -n; done
    count=$((count + 1))
    run_check "$results/checks/$count" "$name" "$seconds" "$@" &
}

# The background part of check. Writes FILE.log and, in FILE.result, "passed", "FAILED" or "skipped"
# and the check's name. Skipped: LIMIT did not let it end.
run_check() {
    local file=$1 name=$2 seconds=$3 started=$SECONDS status result why=''
    shift 3
    printf '\n== %s: %s\n' "$name" "$*" >"$file.log"
    if (($(left) < 5)); then
        status=3
    else
        timeout $((seconds < $(left) ? seconds : $(left))) "$@" >>"$file.log" 2>&1
        status=$?
    fi
    case $status in
    0) result=passed ;;
    3) result=skipped why=" (no time was left)" ;; # bench.py's status too
    124)
        result=FAILED why=" (no end after $seconds s)"
        if (($(left) < 5)); then result=skipped why=" (no time was left)"; fi
        ;;
    *) result=FAILED why=" (status $status)" ;;
    esac
    echo "$result $stage: $name$why" >"$file.result"
    echo "$result  $name$why, $((SECONDS - started)) s"
    if [[ $result == FAILED ]]; then tail -n 25 "$file.log" | cut -c1-300 | sed 's/^/    /'; fi
}

# Waits for the checks so far and collects the end of each log and the result.
collect_checks() {
    local i
    wait
    for ((i = 1; i <= count; i++)); do
        [[ -f $results/checks/$i.log ]] || continue
        tail -c 200000 "$results/checks/$i.log" >>"$results/$stage.log"
        cat "$results/checks/$i.result" >>"$results/$stage.results"
        rm -f "$results/checks/$i".*
    done
}

skip() { # WHY
    echo "skipped $stage: $1" | tee -a "$results/$stage.results"
}

# ---- stages ----
# Points CMake at tests/gpu/packages: pkg-config runs from there, and programs find libraries there.
configure() {
    local flags=(-G Ninja -DCMAKE_BUILD_TYPE=Release -DFKV_PLAIN=ON -DFKV_CUDA=ON)
    local capability libraries path
    capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null |
        tr -d '. ' | sort -u | sed 's/$/-real/' | paste -sd ';')
    [[ $capability =~ ^[0-9] ]] && flags+=("-DCMAKE_CUDA_ARCHITECTURES=$capability")
    if [[ -d $packages ]]; then
        libraries=$(dirname "$(find "$packages/usr/lib" -name libjansson.so)")
        cat >"$build/pkg-config" <<END
#!/bin/sh
export LD_LIBRARY_PATH=$libraries
export PKG_CONFIG_LIBDIR=$libraries/pkgconfig PKG_CONFIG_SYSROOT_DIR=$packages
exec $packages/usr/bin/pkgconf "\$@"
END
        chmod +x "$build/pkg-config"
        path="-Wl,--disable-new-dtags,-rpath,$libraries,-rpath-link,$libraries"
        flags+=(-DPKG_CONFIG_EXECUTABLE="$build/pkg-config" -DCMAKE_EXE_LINKER_FLAGS="$path")
    fi
    cmake -S . -B "$build" "${flags[@]}" && return
    borrow && cmake -S . -B "$build" "${flags[@]}" "${borrowed[@]}"
}

# Where the toolkit is the compiler alone: cuBLAS and cuFFT of PyTorch. Only their own headers are
# taken: PyTorch's others may be of another version.
borrow() {
    local site name library folder=$build/borrowed
    site=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/nvidia
    borrowed=(-DCMAKE_CUDA_FLAGS="-I$folder")
    mkdir -p "$folder"
    for name in cublas cufft; do
        library=$(find "$site" -name "lib$name.so.*" 2>/dev/null | head -n 1)
        [[ $library ]] || return
        borrowed+=("-DCUDA_${name}_LIBRARY=$library")
        find "$site" -path '*include*' -name "$name*.h" -exec ln -sf {} "$folder" \;
    done
    echo "cuBLAS and cuFFT: ${borrowed[*]}"
}

# What was built anew is tested and timed anew.
stage_build() {
    touch -d '1 second ago' "$build/before"
    local names="build=$build python=$python packages=$packages"
    check "configure" 120 bash -c "$(declare -f configure borrow); $names; configure"
    collect_checks
    check "compile" 1000 cmake --build "$build" -- -k 0
    collect_checks
    local programs=("$build/bin" "$build/tests" "$build/bench")
    if [[ $(find "${programs[@]}" -newer "$build/before" -type f -print -quit 2>/dev/null) ]]; then
        find "$results" -maxdepth 1 -type f ! -name 'build.*' -delete
        rm -f "$build/done"
    fi
}

# Tests that ask for the backend under test, by the file that does.
tests_that_use() { grep -lE "$1" "${@:2}" | xargs -rn1 basename -s .c | sort; }
mapfile -t kernel_tests < <(tests_that_use backend_support.h tests/unit/kernels/test_*.c)
mapfile -t engine_tests < <(
    tests_that_use 'FKV_TEST_BACKEND|engine/sequences.h' tests/unit/*/test_*.c
)

stage_test() {
    local name compute
    for compute in f32 bf16 native; do
        for name in "${kernel_tests[@]}"; do
            # Only products and attention have a way of their own in the checkpoint's dtype.
            [[ $compute == native && ! $name =~ attend|layer|step ]] && continue
            check "$name, products in $compute" 200 \
                env FKV_TEST_BACKEND=cuda FKV_TEST_COMPUTE=$compute "$build/tests/$name"
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
    check "embedded model, products and cache in bf16" 200 \
        "$compare" "${text[@]}" --compute bf16 --cache-dtype bf16 cpu cuda
    check "embedded model, cache in f16" 200 "$compare" "${text[@]}" --cache-dtype f16 cpu cuda
    for model in tests/golden/*/config.json; do
        model=$(dirname "$model")
        check "$(basename "$model"), float32" 60 "$compare" --model "$model" --tokens 96 cpu cuda
        check "$(basename "$model"), products in bf16" 60 \
            "$compare" --model "$model" --tokens 96 --compute bf16 --slack 4 cpu cuda
    done
    if [[ -x $build/bin/freqkv-capture ]]; then
        check "captures and spectra on both backends" 200 "$python" tests/gpu/compare_captures.py \
            "$build/bin/freqkv-capture" "$embedded" data/the_tide_mill.txt
    else
        skip "captures and spectra on both backends (there is no HDF5)"
    fi
}

# Small cases only: a sanitizer is some hundred times slower.
sanitize() {
    local tool=$1 name compute sanitizer
    if ! command -v compute-sanitizer >/dev/null; then
        skip "there is no compute-sanitizer here"
        return
    fi
    sanitizer=(compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 20)
    # Some tests ask for more memory than there is and expect the error.
    [[ $tool == memcheck ]] && sanitizer+=(--report-api-errors no)
    # Our kernels only, whose names end in _kernel: not those of cuBLAS.
    if [[ $tool == racecheck ]] && compute-sanitizer --help 2>&1 | grep -qe --kernel-name; then
        sanitizer+=(--kernel-name kns=_kernel)
    fi
    for compute in f32 bf16; do
        for name in "${kernel_tests[@]}"; do
            [[ $compute == bf16 && ! $name =~ attend|layer ]] && continue
            check "$name, products in $compute" 280 \
                env FKV_TEST_SMALL=1 FKV_TEST_BACKEND=cuda FKV_TEST_COMPUTE=$compute \
                "${sanitizer[@]}" "$build/tests/$name"
        done
    done
    check "a small model, decoding through graphs" 280 "${sanitizer[@]}" \
        "$build/tests/compare_backends" --model tests/golden/llama-gqa-tied --tokens 64 cpu cuda
}
stage_memcheck() { sanitize memcheck; }
stage_racecheck() { sanitize racecheck; }

stage_methods() { check "ways to compress" 300 "$build/bench/bench_compress_cuda"; }

# measure MODEL ROW...: bench.py ends by itself before `check` would end it, and goes on where it
# stopped.
measure() {
    # shellcheck disable=SC2086
    check "$1: ${*:2}" 2000 "$python" tests/bench/gpu/bench.py --build "$build" --out "$results" \
        --models "$1" --rows "${@:2}" --seconds $(($(left) - 10)) ${BENCH:-}
}
stage_bench() { measure llama-2-7b limits prefill compress capture compiled; }
stage_lengths() { measure llama-2-7b figure; }
stage_llama-3-8b() { measure llama-3-8b limits prefill compress capture compiled figure; }

# ---- the whole ----
# Libraries first, before anything slow.
if [[ ! -d $packages ]]; then
    missing=$(for name in jansson libpcre2-8 libutf8proc libcrypto cmocka; do
        pkg-config --exists $name 2>/dev/null || printf ' %s' $name
    done)
    echo "tests/gpu/packages is not here: the system's libraries are used."
    echo "(tests/gpu/packages.sh fetches it; it has to be copied with the checkout.)"
    [[ $missing ]] && { echo "They lack:$missing. Nothing can be built." >&2 && exit 2; }
fi
stages=("$@")
((${#stages[@]})) || stages=("${all[@]}")
for stage in "${stages[@]}"; do
    [[ " ${all[*]} " == *" $stage "* ]] || { echo "stages: ${all[*]}; found $stage" >&2 && exit 2; }
done
[[ ${stages[0]} == build ]] || stages=(build "${stages[@]}")
say "machine"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null ||
    echo "nvidia-smi finds no GPU"
command -v nvcc >/dev/null && nvcc --version | sed -n 's/^Cuda compilation tools, //p'
grep -m1 'model name' /proc/cpuinfo | sed 's/.*: //'

number() { grep -c "^$2" "$results/$1.results" 2>/dev/null; }
summary() {
    local stage
    printf '%-12s %7s %7s %8s %8s\n' stage passed FAILED skipped seconds
    for stage in "${all[@]}"; do
        if [[ -f $results/$stage.results ]]; then
            printf '%-12s %7s %7s %8s %8s\n' "$stage" "$(number "$stage" passed)" \
                "$(number "$stage" FAILED)" "$(number "$stage" skipped)" \
                "$(cat "$results/$stage.seconds" 2>/dev/null)"
        else
            printf '%-12s not run\n' "$stage"
        fi
    done
    cat "$results"/*.results 2>/dev/null | grep -v ^passed
    echo
    if [[ $(find "$results" -name 'bench-*.jsonl') ]]; then
        "$python" tests/bench/gpu/report.py "$results"/bench-*.jsonl
    fi
    [[ -f $results/methods.log ]] && cat "$results/methods.log"
    return 0
}
pack() {
    summary >"$out/summary.txt" 2>&1
    tar -C "$results" -czf "$out/results.tar.gz.new" --exclude checks . &&
        mv "$out/results.tar.gz.new" "$out/results.tar.gz"
}

for stage in "${stages[@]}"; do
    if [[ $stage != build && $# == 0 ]] && grep -qx -- "$stage" "$build/done" 2>/dev/null; then
        continue
    fi
    say "$stage"
    if (($(left) < needs[$stage])); then
        echo "left for another call: it needs ${needs[$stage]} s, $(left) are left"
        continue
    fi
    started=$SECONDS count=0 together=$most
    rm -f "$results/$stage".* "$results/checks"/*
    [[ $stage =~ build|methods|bench|lengths|llama ]] && together=1
    export OMP_NUM_THREADS=$((cores / together)) OMP_WAIT_POLICY=passive # of the CPU's side
    "stage_$stage"
    collect_checks
    echo $((SECONDS - started)) >"$results/$stage.seconds"
    [[ $only ]] || grep -qs 'no time was left' "$results/$stage.results" ||
        echo "$stage" >>"$build/done"
    pack
done
say "summary"
cat "$out/summary.txt"
rest=$(for stage in "${all[@]}"; do
    grep -qx -- "$stage" "$build/done" 2>/dev/null || printf ' %s' "$stage"
done)
echo "${rest:+the same command again goes on with:$rest}"
! grep -q '^FAILED\|DIFFERS' "$out/summary.txt"
