#!/bin/sh
# What there is to learn on a machine with a GPU, in one run of less than 8 minutes, the most important first. It needs no
# network and no package: bench/build_gpu_check.sh has built all of it on another machine.
#
#     bench/gpu_check.sh [GPU] [OUT]     GPU: a number, or "emulated" (a rehearsal, with small models); OUT: a folder
#
# Every step has a limit of seconds, after which the next one begins, and writes OUT/STEP.txt while it runs and a line of
# OUT/results.txt when it ends. Exit status 1 where a step failed or took too long.
set -u
cd "$(dirname "$0")/.."
programs=$PWD/build/gpu_check
self=$PWD/bench/gpu_check.sh

say() { printf '%s\n' "$*" | tee -a "$results"; }
# step NAME SECONDS FUNCTION ARGUMENTS...   A function of this script, in a shell of its own.
failed=0
step() {
  name=$1 limit=$2
  shift 2
  begin=$(date +%s)
  timeout -k 5 "$limit" sh -u "$self" --step "$@" > "$out/$name.txt" 2>&1
  status=$?
  took=$(($(date +%s) - begin))
  case $status in
    0) say "$name: done in $took s" ;;
    77) say "$name: skipped: $(tail -n 1 "$out/$name.txt")" ;;
    124 | 137) say "$name: stopped after its limit of $limit s" ;;
    *) say "$name: FAILED with exit status $status after $took s, see $name.txt" ;;
  esac
  case $status in 0 | 77) ;; *) failed=1 ;; esac
  grep '^RESULT ' "$out/$name.txt" | sed 's/^RESULT /    /' | tee -a "$results"
}

machine() {
  nvidia-smi 2>/dev/null || true
  uname -a
  ldd --version 2>&1 | head -n 1
  "$programs/quern" doctor --no-probe --gpu "$gpu"
}
sweep() { "$programs/test_cuda_kernels" --gtest_filter='CudaSweep.*'; }
# The kernels against the scalar set, then whole models at every split: of every architecture where the machine has xz, of
# some, which came along, where not.
suite() {
  data=$programs/data/architectures
  mkdir -p "$data"
  if tar -xJf tests/data/architectures.tar.xz -C "$data" && tar -xJf tests/data/architecture_variants.tar.xz -C "$data"; then
    echo "models of every architecture"
  else
    echo "no xz: models of some architectures"
  fi
  "$programs/test_cuda_kernels" --gtest_filter='*CudaProducts*:*CudaOps*:CudaDevice.Keeps*' --gtest_brief=1 || exit 1
  "$programs/test_gpu" --gtest_filter='*OnGpu*' --gtest_brief=1
}
# speed TYPE GENERATION PROMPT   Mistral-7B's shape in a type; floors of tokens a second, which an H200 is to reach.
speed() {
  type=$1 floor_generation=$2 floor_prompt=$3
  layers=32 prompt=2048 generated=128
  if [ "${gpu#emulated}" != "$gpu" ]; then layers=1 prompt=4 generated=2; fi
  folder=$(folder_with_room) || exit 1
  file=$folder/quern-$type.gguf
  trap 'rm -f "$file" "$file.stream"' EXIT
  trap 'exit 143' TERM
  rm -f "$file"
  "$programs/bench_gpu" model "$file" "$type" "$layers" || exit 1
  "$programs/bench_gpu" stream "$gpu" > "$file.stream" || exit 1
  stream=$(awk '$1 == "stream" { print $2 }' "$file.stream")
  rm -f "$file.stream"
  "$programs/quern" bench "$file" -p "$prompt" -n "$generated" -r 3 --no-probe --gpu "$gpu" --gpu-layers all > "$out/bench-$type.md"
  status=$?
  cat "$out/bench-$type.md"
  [ "$status" = 0 ] || exit "$status"
  # The columns by their names: `test` and `t/s`.
  awk -F'|' -v bytes="$(wc -c < "$file")" -v stream="$stream" -v generation="$floor_generation" -v prompt="$floor_prompt" '
    /t\/s/ { for (i = 1; i <= NF; ++i) { name = $i; gsub(/ /, "", name); if (name == "test") test = i; if (name == "t/s") rate = i } next }
    test && $test ~ /(pp|tg)[0-9]/ {
      split($rate, parts, " ")
      is_generation = $test ~ /tg/
      printf "RESULT %s %.1f tok/s (H200: at least %d)", $test, parts[1], is_generation ? generation : prompt
      if (is_generation) printf ", reads %.1f GB/s of %s GB/s that a kernel copies: %.0f %% (at least 45)", parts[1] * bytes / 1e9, stream, parts[1] * bytes / 1e7 / stream
      printf "\n"
    }' "$out/bench-$type.md"
  "$programs/bench_gpu" compare "$file" "$gpu" > "$out/compare-$type.txt"
  status=$?
  sed -n 's/^logits/RESULT logits:/p' "$out/compare-$type.txt"
  exit "$status"
}
folder_with_room() {
  for folder in /dev/shm "${TMPDIR:-/tmp}"; do
    room=$(df -Pk "$folder" 2>/dev/null | awk 'NR == 2 { print $4 }')
    if [ "${room:-0}" -gt 5500000 ]; then
      echo "$folder"
      return
    fi
  done
  echo "no folder with 5.5 GB free" >&2
  return 1
}
# One kernel of every operation, for memory that is not theirs and for races.
sanitizer() {
  tool=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1)
  if [ -z "$tool" ] || [ "${gpu#emulated}" != "$gpu" ]; then
    echo "compute-sanitizer is not there, or there is no GPU"
    exit 77
  fi
  for check in memcheck racecheck; do
    "$tool" --tool "$check" --error-exitcode 9 "$programs/test_cuda_kernels" \
      --gtest_filter='*CudaProducts.AreMultipliedWithTheMatrixsFactorOnce/Q4_0:*CudaProducts.AreMultipliedWithTheMatrixsFactorOnce/Q6_K:*CudaOps.*/Ascending' --gtest_brief=1 || exit 1
  done
}

if [ "${1:-}" = --step ]; then
  gpu=$QUERN_TEST_GPU out=$QUERN_CHECK_OUT
  shift
  "$@"
  exit $?
fi
gpu=${1:-0} out=${2:-${OUT:-gpu_check}}
mkdir -p "$out"
results=$out/results.txt
: > "$results"
if [ ! -x "$programs/bench_gpu" ]; then
  echo "error: no $programs/bench_gpu; bench/build_gpu_check.sh builds it" >&2
  exit 1
fi
export QUERN_TEST_GPU="$gpu" QUERN_CHECK_OUT="$out" QUERN_TEST_DATA="$PWD/tests/data" QUERN_UNPACKED_DATA="$programs/data"
say "GPU $gpu, $(date -u +%Y-%m-%dT%H:%M:%SZ)"
step machine 20 machine
step sweep 20 sweep
step suite 120 suite
step q4_0 150 speed q4_0 400 12000
step q4_k_m 120 speed q4_k_m 400 12000
step sanitizer 60 sanitizer
exit $failed
