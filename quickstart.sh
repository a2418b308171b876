#!/bin/sh
# From a fresh Debian machine to a model that talks: installs packages, builds, converts the small checkpoint
# that comes with the sources, completes a text with it, and measures it.
set -eu
cd "$(dirname "$0")"
. .ci/packages.sh

# Prints a command, then runs it.
show() {
  echo "\$ $*"
  "$@"
}

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

  # talk to this small model's file, or look into it
  $quern run $model -p "JULIET:"
  $quern inspect $model

  # Mistral-7B-Instruct-v0.2: get config.json, tokenizer.model and the *.safetensors files with their index
  # (14.5 GB) from https://huggingface.co/mistralai/Mistral-7B-Instruct-v0.2 into one folder. The converted
  # file takes another 4.1 GB of disk; running it takes about 5 GB of memory.
  $quern convert Mistral-7B-Instruct-v0.2 -o mistral-7b-q4_0.gguf --type q4_0
  $quern chat mistral-7b-q4_0.gguf
TEXT
