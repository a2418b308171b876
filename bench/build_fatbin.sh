#!/bin/sh
# Compiles the kernels of the GPU for every chip that they are written for, sm_75 to sm_120, and says how large the
# fat binary is: what a release for all machines carries. CI builds sm_80, sm_90a and PTX alone (kernels/CMakeLists.txt).
#
#     bench/build_fatbin.sh [OUT.fatbin]     NVCC: nvcc of 12.8 or later
set -eu
cd "$(dirname "$0")/.."
out=${1:-build/kernels-all.fatbin}
mkdir -p "$(dirname "$out")"
chips=
for chip in 75 80 86 89 90a 100 120; do chips="$chips -gencode=arch=compute_$chip,code=sm_$chip"; done
# shellcheck disable=SC2086 # a list of words
"${NVCC:-nvcc}" --threads 0 -std=c++20 -O3 -fmad=false -ftz=false -prec-div=true -prec-sqrt=true --expt-relaxed-constexpr -diag-suppress=20094 -I. \
  $chips -gencode=arch=compute_80,code=compute_80 -fatbin -compress-mode=size -o "$out" kernels/cuda/kernels.cu
wc -c "$out"
