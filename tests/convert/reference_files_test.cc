// Whole files against llama-quantize's: golden/quantized_files.jsonl has the formats and CRC-32 of the
// tensors that it makes of tiny-mistral, for every type name, without and with importance
// (tests/interop/llama_quantize_agrees.py).
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "quant/gguf_writer.h"
#include "tests/convert/convert_calls.h"
#include "tests/support/json.h"

namespace quern {
namespace {

using test::error_code;
using test::error_of;
using test::Gguf;
using test::Json;
using test::kData;
using test::kTiny;
using test::TempFolder;

// CRC-32 as zlib has it.
uint32_t crc_of(const std::string& bytes) {
  static const std::vector<uint32_t> table = [] {
    std::vector<uint32_t> entries(256);
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t c = i;
      for (int bit = 0; bit < 8; ++bit) c = c >> 1 ^ (c & 1 ? 0xedb88320u : 0u);
      entries[i] = c;
    }
    return entries;
  }();
  uint32_t crc = 0xffffffffu;
  for (const char byte : bytes) crc = table[(crc ^ static_cast<uint8_t>(byte)) & 255] ^ crc >> 8;
  return ~crc;
}

// importance_of() of the script.
std::vector<float> importance_of(const std::string& name, uint64_t columns) {
  const uint32_t seed = crc_of(name);
  std::vector<float> sums;
  for (uint32_t j = 0; j < columns; ++j)
    sums.push_back(static_cast<float>(((seed + j * 2654435761u) >> 12) % 4093) / 256);
  return sums;
}

struct Sums {
  std::string name;
  std::vector<float> values;
  float count;
};

void write_importance(const std::string& path, const std::vector<Sums>& entries) {
  GgufMetadata metadata;
  metadata.set_string("general.type", "imatrix");
  metadata.set_strings("imatrix.datasets", std::vector<std::string>{"formula"});
  metadata.set_u32("imatrix.chunk_count", 1);
  metadata.set_u32("imatrix.chunk_size", 16);
  std::vector<GgufTensorInfo> infos;
  for (const Sums& entry : entries) {
    infos.push_back({entry.name + ".in_sum2", DType::F32, {1, entry.values.size()}});
    infos.push_back({entry.name + ".counts", DType::F32, {1, 1}});
  }
  const GgufPlan plan(metadata, infos);
  GgufWriter writer(path, plan, metadata, true);
  const auto bytes = [](const float* x, size_t n) {
    return std::span<const uint8_t>(reinterpret_cast<const uint8_t*>(x), n * sizeof(float));
  };
  for (size_t i = 0; i < entries.size(); ++i) {
    writer.write_tensor(2 * i, 0, bytes(entries[i].values.data(), entries[i].values.size()));
    writer.write_tensor(2 * i + 1, 0, bytes(&entries[i].count, 1));
  }
  writer.finish();
}

std::vector<Sums> importance_of_tiny() {
  const TempFolder folder;
  test::run(kTiny, folder.file("a.gguf"), "bf16");
  std::vector<Sums> entries;
  const Gguf gguf(folder.file("a.gguf"));
  for (const TensorView& tensor : gguf.reader.tensors())
    if (tensor.shape.size() == 2 && tensor.name.starts_with("blk."))
      entries.push_back({tensor.name, importance_of(tensor.name + ".0", tensor.columns()), 16});
  return entries;
}

ConvertReport convert_tiny(const std::string& output, const std::string& type, const std::string& importance,
                           const ConvertCallbacks& callbacks = {}) {
  ConvertOptions options;
  options.source = kTiny;
  options.output = output;
  options.type = type;
  options.importance = importance;
  options.force = true;
  options.n_threads = 2;
  return convert(options, callbacks);
}

TEST(ReferenceFiles, EveryTensorOfEveryTypeIsLlamaQuantizes) {
  const TempFolder folder;
  write_importance(folder.file("imatrix.gguf"), importance_of_tiny());
  std::ifstream file(kData + "/golden/quantized_files.jsonl");
  size_t n_files = 0;
  for (std::string text; std::getline(file, text); ++n_files) {
    const Json golden = Json::parse(text);
    const std::string type = golden["type"];
    const bool weighted = golden["importance"];
    SCOPED_TRACE(type + (weighted ? " with importance" : ""));
    convert_tiny(folder.file("a.gguf"), type, weighted ? folder.file("imatrix.gguf") : "");
    const Gguf gguf(folder.file("a.gguf"));
    ASSERT_EQ(gguf.reader.tensors().size(), golden["tensors"].size());
    for (const auto& [name, expected] : golden["tensors"].members()) {
      EXPECT_EQ(block_format(gguf.reader.find_tensor(name)->dtype).name, expected[0].get<std::string>())
          << name;
      EXPECT_EQ(crc_of(gguf.bytes_of(name)), expected[1].get<uint32_t>()) << name;
    }
    EXPECT_EQ(gguf.reader.find("quantize.imatrix.entries_count") != nullptr, weighted);
  }
  EXPECT_EQ(n_files, 2 * recipes().size());
}

TEST(ConvertWithImportance, NamesATensorThatIsMissingOrOfAnotherModel) {
  const TempFolder folder;
  const std::string path = folder.file("imatrix.gguf"), output = folder.file("a.gguf");
  const std::vector<Sums> all = importance_of_tiny();
  std::vector<Sums> entries = all;
  const std::string name = entries.back().name;
  entries.pop_back();
  write_importance(path, entries);
  EXPECT_NE(error_of([&] { convert_tiny(output, "q4_k_m", path); }).find(name), std::string::npos);
  EXPECT_EQ(error_code, ErrorCode::kMalformed);
  EXPECT_NO_THROW(convert_tiny(output, "q8_0", path)) << "a format that needs none";

  entries = all;
  entries.back().values.pop_back();
  write_importance(path, entries);
  EXPECT_NE(error_of([&] { convert_tiny(output, "q4_k_m", path); }).find(name), std::string::npos);
  EXPECT_EQ(error_code, ErrorCode::kMalformed);
}

TEST(ConvertWithImportance, SaysWhatWasNeverChosen) {
  const TempFolder folder;
  std::vector<Sums> entries = importance_of_tiny();
  entries.front().count = 0;
  write_importance(folder.file("imatrix.gguf"), entries);
  std::string notices;
  ConvertCallbacks callbacks;
  callbacks.notice = [&](std::string_view line) { notices += line; };
  const ConvertReport report =
      convert_tiny(folder.file("a.gguf"), "q4_k_m", folder.file("imatrix.gguf"), callbacks);
  EXPECT_NE(notices.find(entries.front().name), std::string::npos) << notices;
  for (const ConvertedTensor& tensor : report.tensors)
    EXPECT_EQ(tensor.weighted, tensor.name.starts_with("blk.") && tensor.shape.size() == 2) << tensor.name;
}

}  // namespace
}  // namespace quern
