// tests/data/golden/quantized_blocks.jsonl: 17 inputs of 256 weights, and for 12 formats the bytes that the
// reference quantizer makes of each and the floats it reads back.
#pragma once

#include <cstring>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "quant/block_format.h"
#include "tests/support/json.h"
#include "tests/support/paths.h"

namespace quern {

struct GoldenBlocks {
  const BlockFormat* format;
  std::string input_name;
  std::vector<float> input;
  std::vector<uint8_t> bytes;
  std::vector<float> decoded;
};

inline std::vector<uint8_t> bytes_from_hex(const std::string& hex) {
  std::vector<uint8_t> bytes(hex.size() / 2);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<uint8_t>(std::stoul(hex.substr(2 * i, 2), nullptr, 16));
  }
  return bytes;
}

inline std::vector<float> floats_from_hex(const std::string& hex) {
  const std::vector<uint8_t> bytes = bytes_from_hex(hex);
  std::vector<float> floats(bytes.size() / sizeof(float));
  std::memcpy(floats.data(), bytes.data(), bytes.size());
  return floats;
}

// "Q4_0"; throws std::out_of_range when there is none.
inline const BlockFormat* format_named(const std::string& name) {
  for (const BlockFormat& format : block_formats())
    if (format.name == name) return &format;
  throw std::out_of_range("no format " + name);
}

inline std::vector<GoldenBlocks> read_golden_blocks() {
  std::ifstream file(test::test_data("golden/quantized_blocks.jsonl"));
  std::vector<GoldenBlocks> golden;
  std::map<std::string, std::vector<float>> inputs;
  for (std::string text; std::getline(file, text);) {
    const test::Json line = test::Json::parse(text);
    if (line["kind"] == "input") {
      inputs[line["id"]] = floats_from_hex(line["f32_hex"]);
    } else if (line["kind"] == "q") {
      const std::string input = line["input"];
      golden.push_back({format_named(line["type"]), input, inputs.at(input),
                        bytes_from_hex(line["bytes_hex"]), floats_from_hex(line["dequant_f32_hex"])});
    }
  }
  return golden;
}

// tests/data/golden/codebook_blocks.jsonl: random blocks of formats that are read only, and the floats that
// the reference reads from them.
struct CodebookBlocks {
  const BlockFormat* format;
  std::vector<uint8_t> bytes;
  std::vector<float> decoded;
};

inline std::vector<CodebookBlocks> read_codebook_blocks() {
  std::ifstream file(test::test_data("golden/codebook_blocks.jsonl"));
  std::vector<CodebookBlocks> golden;
  for (std::string text; std::getline(file, text);) {
    const test::Json line = test::Json::parse(text);
    if (line["kind"] == "blocks")
      golden.push_back({format_named(line["type"]), bytes_from_hex(line["bytes_hex"]),
                        floats_from_hex(line["dequant_f32_hex"])});
  }
  return golden;
}

// tests/data/golden/weighted_blocks.jsonl: inputs of 256 weights, each one row, with the importance of its
// columns, and the bytes that the reference quantizers make of them with it (MXFP4's without).
struct WeightedBlocks {
  const BlockFormat* format;
  std::string input_name;
  std::vector<float> input, importance;
  std::vector<uint8_t> bytes;
  bool weighted;
};

inline std::vector<WeightedBlocks> read_weighted_blocks() {
  std::ifstream file(test::test_data("golden/weighted_blocks.jsonl"));
  std::vector<WeightedBlocks> golden;
  std::map<std::string, std::pair<std::vector<float>, std::vector<float>>> inputs;
  for (std::string text; std::getline(file, text);) {
    const test::Json line = test::Json::parse(text);
    const std::string kind = line["kind"];
    if (kind == "input") {
      inputs[line["id"]] = {floats_from_hex(line["f32_hex"]), floats_from_hex(line["importance_f32_hex"])};
    } else if (kind != "meta") {
      const std::string input = line["input"];
      golden.push_back({format_named(line["type"]), input, inputs.at(input).first, inputs.at(input).second,
                        bytes_from_hex(line["bytes_hex"]), kind == "weighted"});
    }
  }
  return golden;
}

}  // namespace quern
