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
#     methods    the three ways to compress, timed at the sizes that kernels/cuda/compress.cu chooses for
#     bench      tests/bench/gpu: beside PyTorch and the machine's limits
#
# Every check is a line; a failed one shows the end of its output and the rest goes on. Whole outputs are in OUT/STAGE.log.
#
# Where the machine is to be had for minutes at a time, stages go one by one with a LIMIT (they build on `build`), and a model of the benchmark at a time, which takes 6 to 9 minutes:
#   LIMIT=580 tests/gpu/run.sh build test methods        LIMIT=580 tests/gpu/run.sh compare memcheck racecheck        LIMIT=580 MODELS=llama-2-7b tests/gpu/run.sh bench
#
# OUT: folder for results (tests/gpu/results). BUILD: build folder (build/gpu). PYTHON (python3). LIMIT: seconds for all of it; checks that do not get their turn are skipped and
# named. ONLY: a regular expression; checks whose "STAGE: NAME" it does not match are left out. JOBS: checks at once on the GPU (half the cores, 6 at most; what is timed goes alone).
# MODELS: of the benchmark (llama-2-7b llama-3-8b). BENCH: further arguments for bench.py.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
out=${OUT:-tests/gpu/results} build=${BUILD:-build/gpu} python=${PYTHON:-python3} only=${ONLY:-} limit_of_all=${LIMIT:-1000000}
cores=$(nproc)
most=${JOBS:-$((cores < 4 ? 1 : cores > 12 ? 6 : cores / 2))}
mkdir -p "$out" "$build/checks"
out=$(realpath "$out") build=$(realpath "$build")
count=0 passed=0 failed=() skipped=()
export FKV_CUDA_MODULE=${FKV_CUDA_MODULE:-$build/bin/freqkv-cuda.so}
for folder in /usr/local/cuda/bin /usr/local/cuda/compute-sanitizer; do # where installers leave nvcc and compute-sanitizer, on the PATH or not
    [[ -d $folder ]] && PATH=$PATH:$folder
done

say() { printf '\n== %s\n' "$*"; }

# check NAME LIMIT COMMAND...: LIMIT seconds, beside at most `together` - 1 others.
check() {
    local name=$1 limit=$2 left
    shift 2
    [[ "$stage: $name" =~ $only ]] || return 0
    while (($(jobs -rp | wc -l) >= together)); do wait -n; done
    left=$((limit_of_all - SECONDS))
    if ((left < 10)); then
        skipped+=("$stage: $name")
        echo "skipped $name (no time is left)"
        return 0
    fi
    count=$((count + 1))
    run_check "$build/checks/$count" "$name" $((limit < left ? limit : left)) "$@" &
}

# check's part in a process of its own; leaves FILE.log, and the check's name in FILE.passed or FILE.failed.
run_check() {
    local file=$1 name=$2 limit=$3 started=$SECONDS status
    shift 3
    printf '\n== %s: %s\n' "$name" "$*" >"$file.log"
    timeout "$limit" "$@" >>"$file.log" 2>&1
    status=$?
    if ((status == 0)); then
        echo "$stage: $name" >"$file.passed"
        echo "ok      $name ($((SECONDS - started)) s)"
    else
        echo "$stage: $name" >"$file.failed"
        echo "FAILED  $name (status $status, $((SECONDS - started)) s)
$(tail -n 25 "$file.log" | cut -c1-300 | sed 's/^/    /')"
    fi
}

# Waits for the checks so far, and takes what they left.
settle() {
    local i file
    wait
    for ((i = 1; i <= count; i++)); do
        file=$build/checks/$i
        [[ -f $file.log ]] || continue
        cat "$file.log" >>"$out/$stage.log"
        [[ -f $file.passed ]] && ((passed++))
        [[ -f $file.failed ]] && failed+=("$(cat "$file.failed")")
        rm -f "$file".*
    done
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
    cmake -S . -B "$build" "${flags[@]}" && return
    borrow && cmake -S . -B "$build" "${flags[@]}" "${borrowed[@]}"
}

# A toolkit may be the compiler alone; then PyTorch's cuBLAS and cuFFT do. Of their headers only theirs: the others are of another version, perhaps.
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

stage_build() {
    check "configure" 120 bash -c "$(declare -f configure borrow); build=$build python=$python; configure"
    settle
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
    local tool=$1 name compute sanitizer
    if ! command -v compute-sanitizer >/dev/null; then
        skipped+=("$tool: there is no compute-sanitizer here")
        return
    fi
    sanitizer=(compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 20)
    # Tests that ask for more memory than there is want the error; this backend notices every one by itself.
    [[ $tool == memcheck ]] && sanitizer+=(--report-api-errors no)
    # Hazards of cuBLAS's kernels are none of ours; our kernels' names end in _kernel.
    [[ $tool == racecheck ]] && compute-sanitizer --help 2>&1 | grep -qe --kernel-name && sanitizer+=(--kernel-name kns=_kernel)
    for name in "${kernel_tests[@]}"; do
        for compute in f32 bf16; do
            # Only products and attention have a way of their own in bf16.
            [[ $compute == bf16 && ! $name =~ attend|layer ]] && continue
            check "$name, products in $compute" 280 env FKV_TEST_SMALL=1 FKV_TEST_BACKEND=cuda FKV_TEST_COMPUTE=$compute "${sanitizer[@]}" "$build/tests/$name"
        done
    done
    check "a small model, decoding through graphs" 280 "${sanitizer[@]}" "$build/tests/compare_backends" --model tests/golden/llama-gqa-tied --tokens 64 cpu cuda
}
stage_memcheck() { sanitize memcheck; }
stage_racecheck() { sanitize racecheck; }

stage_methods() {
    check "ways to compress" 300 "$build/bench/bench_compress_cuda"
    settle
    cat "$out/methods.log"
}

stage_bench() {
    local model
    for model in ${MODELS:-llama-2-7b llama-3-8b}; do
        # bench.py ends by itself a little before `check` would end it, with a table of what it has.
        # shellcheck disable=SC2086
        check "$model beside PyTorch" 900 "$python" tests/bench/gpu/bench.py --build "$build" --out "$out" --models "$model" \
            --seconds $((limit_of_all - SECONDS < 900 ? limit_of_all - SECONDS - 20 : 880)) ${BENCH:-}
        settle
        [[ -f $out/bench-$(basename "$model").md ]] && cat "$out/bench-$(basename "$model").md"
    done
}

stages=("$@")
((${#stages[@]})) || stages=(build test compare memcheck racecheck methods bench)
for stage in "${stages[@]}"; do
    if ! declare -F "stage_$stage" >/dev/null; then
        echo "stages: build, test, compare, memcheck, racecheck, methods, bench; found $stage" >&2
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
    together=$most
    [[ $stage =~ build|methods|bench ]] && together=1
    export OMP_NUM_THREADS=$((cores / together)) OMP_WAIT_POLICY=passive # of the CPU's side
    "stage_$stage"
    settle
done
say "summary"
{
    echo "$passed passed, ${#failed[@]} failed, ${#skipped[@]} skipped"
    ((${#failed[@]})) && printf 'FAILED  %s\n' "${failed[@]}"
    ((${#skipped[@]})) && printf 'skipped %s\n' "${skipped[@]}"
} | tee "$out/summary.txt"
((${#failed[@]} + ${#skipped[@]} == 0))
