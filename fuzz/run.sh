#!/usr/bin/env bash
# Fuzzes every target, or those that are named, and writes a table of what was run to RESULTS.md.
#
#   fuzz/run.sh [SECONDS [TARGET ...]]
#
# A target runs for SECONDS (1,200 if not given) and until it has had NSMC_FUZZ_RUNS executions
# (1,000,000 if not given; 0 for none), whichever takes longer; NSMC_FUZZ_JOBS of them run at once (1
# if not given). One that crashes is started again, up to ten times; the inputs are left in
# artifacts/TARGET. Needs a nightly toolchain, cargo-fuzz and a C++ compiler. NSMC_FUZZ_BUILT=1 takes
# the programs as they are.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:-1200}
runs=${NSMC_FUZZ_RUNS:-1000000}
jobs=${NSMC_FUZZ_JOBS:-1}
shift || true
mapfile -t targets < <(cargo +nightly fuzz list --fuzz-dir .)
if [ $# -gt 0 ]; then targets=("$@"); fi

# One thread each: a crash is found again, and targets can run side by side.
export RAYON_NUM_THREADS=1
limits=(-rss_limit_mb=512 -timeout=60 -max_len=16384 -detect_leaks=0)
# One allocation beyond what is left of 4 GiB of addresses ends the process, touched or not.
address_space_kib=$((4 << 20))

# Without a sanitizer: the readers are safe Rust, and an error is a panic, an abort or memory without
# bounds.
[ -n "${NSMC_FUZZ_BUILT:-}" ] || RUSTC_WRAPPER=$PWD/rustc.sh nice -n 10 cargo +nightly fuzz build --fuzz-dir . --sanitizer none
binaries=target/$(rustc +nightly -vV | sed -n 's/^host: //p')/release

memory=/dev/shm
[ -d "$memory" ] || memory=${TMPDIR:-/tmp}
folder=$(mktemp -d "$memory/nsmc-fuzz.XXXXXX")
trap 'rm -rf "$folder"' EXIT

results=RESULTS.md
rm -f "$results.partial"

fuzz() {
    local target=$1 executed=0 taken=0 crashes=0 features=0 log=$folder/$1.log
    local corpus=corpus.work/$target artifacts=artifacts/$target
    mkdir -p "$corpus" "$artifacts" "$folder/$target"
    while [ "$crashes" -lt 10 ]; do
        local stop=()
        if [ "$taken" -lt "$seconds" ]; then
            stop=("-max_total_time=$((seconds - taken))")
        elif [ "$executed" -lt "$runs" ]; then
            stop=("-runs=$((runs - executed))")
        else
            break
        fi
        local started=$SECONDS status=0
        find "$folder/$target" -mindepth 1 -delete
        (
            ulimit -v "$address_space_kib"
            NSMC_FUZZ_FOLDER="$folder/$target" exec nice -n 19 "$binaries/$target" \
                "${limits[@]}" "${stop[@]}" -print_final_stats=1 "-artifact_prefix=$artifacts/" \
                "$corpus" "corpus/$target"
        ) > "$log" 2>&1 || status=$?
        taken=$((taken + SECONDS - started))
        local units
        units=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        executed=$((executed + ${units:-0}))
        features=$(grep -oE 'cov: [0-9]+ ft: [0-9]+' "$log" | tail -1 | sed -E 's/cov: |ft: //g' || true)
        if [ "$status" -ne 0 ]; then
            crashes=$((crashes + 1))
            cp "$log" "$artifacts/last.log"
            echo "$target: $(grep -E 'panicked at|ERROR: |SUMMARY: ' "$log" | head -2 | tr '\n' ' ')" >&2
        elif [ "$SECONDS" -eq "$started" ]; then
            # Nothing was run: better no campaign than one without end.
            taken=$((taken + 1))
        fi
    done
    local kept
    kept=$(find "$corpus" -type f | wc -l)
    echo "| \`$target\` | $executed | $taken | ${features/ / and } | $kept | $crashes |" | tee -a "$results.partial"
}

for target in "${targets[@]}"; do
    while [ "$(jobs -pr | wc -l)" -ge "$jobs" ]; do wait -n; done
    fuzz "$target" &
done
while [ -n "$(jobs -pr)" ]; do wait -n; done
{
    echo "| target | executions | seconds | edges and features | inputs kept | crashes |"
    echo "|---|---:|---:|---:|---:|---:|"
    sort "$results.partial"
} > "$results"
rm "$results.partial"
