#!/bin/sh
# formats.sh QUERN FOLDER   Formats beside llama.cpp, by hand: bytes of every type (llama-quantize), importance
# (llama-imatrix), divergence of two models (llama-perplexity). FOLDER: where these three programs are; built from
# llama-cpp-python 0.3.36's source, models.md says how its results were. Exit 0: all agrees. A few minutes.
set -eu
if [ $# -lt 2 ]; then
  echo "usage: $0 QUERN FOLDER_OF_LLAMA_CPPS_PROGRAMS" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
quern=$1 peer=$2 failed=0
for program in llama-quantize llama-imatrix llama-perplexity; do
  if [ ! -x "$peer/$program" ]; then
    echo "$peer/$program: no such program" >&2
    exit 2
  fi
done
step() {
  echo "== $1"
  shift
  "$@" || failed=1
}
step "every tensor's bytes, every type" python3 "$here/llama_quantize_agrees.py" --quern "$quern" \
  --llama-quantize "$peer/llama-quantize"
step "sums of squares of inputs" python3 "$here/llama_imatrix_agrees.py" --quern "$quern" --peer "$peer/llama-imatrix"
step "perplexity and divergence" python3 "$here/llama_perplexity_agrees.py" --quern "$quern" \
  --peer "$peer/llama-perplexity" --data "$here/../data"
exit $failed
