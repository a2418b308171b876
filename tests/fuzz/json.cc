// JSON from files: read, or refused in one line.
#include "quant/json/json.h"

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quern;
  fuzz::take([&] { static_cast<void>(parse_json(fuzz::as_text({data, size}), "fuzz.json")); });
  return 0;
}
