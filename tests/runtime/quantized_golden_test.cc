// Whole models of quantized files against a float64 forward pass that quantizes activations as arithmetic.md
// says (tests/data/golden/write_quantized_logits.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "quant/float16.h"
#include "quant/gguf_reader.h"
#include "tests/support/json.h"
#include "tests/support/models.h"
#include "tests/support/paths.h"
#include "tests/support/temp_folder.h"
#include "tests/support/weight_blocks.h"

namespace quern {
namespace {

using test::Json;

// Of max(logits) - min(logits). Measured: 0.000002 to 0.0065; what is more than 0.0001 are activation codes
// that a rounding of float32 has turned over. A doubled block of the output matrix: 0.08 to 0.59.
constexpr double kTolerance = 0.01;

std::vector<Json> golden_entries() {
  return Json::read(test::unpacked_data("quantized_logits.json")).elements();
}

class QuantizedLogits : public testing::TestWithParam<Json> {
 protected:
  // The largest difference from the golden logits at any of their positions, over the spread of those.
  double largest_difference(const std::string& path) const {
    const auto ids = GetParam()["ids"].get<std::vector<int32_t>>();
    const auto positions = GetParam()["positions"].get<std::vector<size_t>>();
    ModelOptions options;
    options.kv = KvType::kF32;  // the cache's own rounding is another matter
    const auto model = test::open_model(path, options);
    const size_t vocab = model->hparams().vocab_size;
    const std::vector<float> logits = test::all_logits(*model, ids, ids.size(), 512);
    double largest = 0;
    for (size_t i = 0; i < positions.size(); ++i) {
      const auto expected = GetParam()["logits"][i].get<std::vector<double>>();
      EXPECT_EQ(expected.size(), vocab);
      const auto [low, high] = std::minmax_element(expected.begin(), expected.end());
      for (size_t k = 0; k < vocab; ++k) {
        const double difference = std::abs(logits[positions[i] * vocab + k] - expected[k]) / (*high - *low);
        if (std::isnan(difference)) return difference;  // not less than anything
        largest = std::max(largest, difference);
      }
    }
    return largest;
  }

  std::string path() const { return test::converted(GetParam()["model"], GetParam()["type"]); }
};

TEST_P(QuantizedLogits, AreThoseOfAFloat64Pass) {
  const double difference = largest_difference(path());
  RecordProperty("difference_over_spread", std::to_string(difference));
  EXPECT_LE(difference, kTolerance);
}

TEST_P(QuantizedLogits, AreOthersWhenOneBlocksScaleIsDoubled) {
  std::string bytes = test::read_file(path());
  const auto* const first = reinterpret_cast<const uint8_t*>(bytes.data());
  const GgufReader gguf({first, bytes.size()}, path());
  const TensorView* const output = gguf.find_tensor("output.weight");
  ASSERT_NE(output, nullptr);
  const BlockFormat& format = block_format(output->dtype);
  // The block with the largest scale.
  const size_t offset = test::f16_offsets(format).front();
  uint16_t largest = 0;
  size_t place = 0;
  for (size_t block = 0; block < output->n_bytes; block += format.block_bytes) {
    uint16_t bits = 0;
    std::memcpy(&bits, output->data + block + offset, sizeof bits);
    if (std::abs(f32_from_f16(bits)) <= std::abs(f32_from_f16(largest))) continue;
    largest = bits;
    place = static_cast<size_t>(output->data - first) + block + offset;
  }
  const uint16_t doubled = f16_from_f32(2 * f32_from_f16(largest));
  std::memcpy(&bytes[place], &doubled, sizeof doubled);
  const test::TempFolder folder;
  EXPECT_GT(largest_difference(folder.write("changed.gguf", bytes)), 5 * kTolerance);
}

std::string case_name(const testing::TestParamInfo<Json>& info) {
  std::string name = info.param["model"].get<std::string>() + "_" + info.param["type"].get<std::string>();
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Files, QuantizedLogits, testing::ValuesIn(golden_entries()), case_name);

}  // namespace
}  // namespace quern
