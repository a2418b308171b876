// Headers of safetensors files: what is read lies within the file, without gaps.
#include "convert/safetensors.h"

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quern;
  fuzz::take([&] {
    const SafetensorsHeader header = read_safetensors_header({data, size}, "fuzz.safetensors");
    for (const SafetensorsTensor& tensor : header.tensors)
      if (tensor.begin > tensor.end || tensor.end > size) fuzz::found("a tensor outside the file");
  });
  return 0;
}
