#!/bin/sh
# Builds what bench/gpu_check.sh runs into build/gpu_check: programs that need nothing but a C library, and the tests' data.
# With the sources they fit into 64 MiB, which this checks.
#
#     bench/build_gpu_check.sh [SENTENCEPIECE]     its source tree; left out: pip fetches that of 0.2.0
#
# Debian has no archive of sentencepiece to link, so it is built here. Device code: nvcc, as for any build; CHIPS says for
# which ("80;90a").
set -eu
cd "$(dirname "$0")/.."
out=build/gpu_check deps=build/portable-deps
mkdir -p "$deps"

sources=${1:-}
if [ -z "$sources" ]; then
  sources=$deps/sentencepiece-0.2.0/sentencepiece
  if [ ! -d "$sources" ]; then
    python3 -m pip download -q --no-deps --no-binary sentencepiece -d "$deps" sentencepiece==0.2.0
    tar -xzf "$deps/sentencepiece-0.2.0.tar.gz" -C "$deps"
  fi
fi
cmake -S "$sources" -B "$deps/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSPM_ENABLE_SHARED=OFF -DSPM_ENABLE_TCMALLOC=OFF
cmake --build "$deps/build" --target sentencepiece-static

cmake --preset portable -DQUERN_CUDA=ON -DQUERN_CUDA_ARCHITECTURES="${CHIPS:-80;90a}" \
  -DSENTENCEPIECE_LIBRARY="$PWD/$deps/build/src/libsentencepiece.a" -DSENTENCEPIECE_INCLUDE_DIR="$(cd "$sources" && pwd)/src"
cmake --build --preset portable --target gpu_check

rm -rf "$out"
mkdir -p "$out/data/architectures"
for program in cli/quern bench/bench_gpu tests/kernels/test_cuda_kernels tests/runtime/test_gpu; do
  strip -o "$out/${program##*/}" "build/portable/$program"
  # libc and what belongs to it.
  needed=$(objdump -p "$out/${program##*/}" | awk '$1 == "NEEDED" { print $2 }' |
    grep -vE '^(libc|libm|libdl|libpthread|librt|ld-linux-x86-64)\.so' || true)
  if [ -n "$needed" ]; then
    echo "error: ${program##*/} needs libraries that a bare machine has not: $needed" >&2
    exit 1
  fi
done
# Where the other machine cannot unpack all of them.
for name in deepseek3 gemma2 gpt-oss qwen2 qwen3-moe; do
  cp -r "build/portable/tests/data/architectures/$name" "$out/data/architectures/"
done
oldest=$(objdump -T "$out"/* 2>/dev/null | grep -o 'GLIBC_2[.0-9]*' | sort -uV | tail -1)
programs=$(du -sk "$out" | cut -f1)
tree=$(git ls-files -z | xargs -0 du -ck | awk '$2 == "total" { sum += $1 } END { print sum }')
echo "$out: $((programs / 1024)) MiB (quern: $(($(wc -c < "$out/quern") / 1024 / 1024)) MiB), the tree $((tree / 1024)) MiB; needs $oldest"
if [ $((programs + tree)) -gt $((64 * 1024)) ]; then
  echo "error: more than 64 MiB together" >&2
  exit 1
fi
