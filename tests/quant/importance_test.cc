#include "quant/importance.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "quant/error.h"
#include "quant/gguf_writer.h"
#include "tests/support/temp_folder.h"

namespace quern {
namespace {

using test::TempFolder;

struct Entry {
  std::string name;
  Shape sums_shape;
  std::vector<float> sums, counts;
};

std::string write_gguf(const TempFolder& folder, const std::vector<Entry>& entries, bool with_counts = true) {
  GgufMetadata metadata;
  metadata.set_string("general.type", "imatrix");
  metadata.set_strings("imatrix.datasets", std::vector<std::string>{"a.txt", "b.txt"});
  metadata.set_u32("imatrix.chunk_count", 8);
  metadata.set_u32("imatrix.chunk_size", 512);
  std::vector<GgufTensorInfo> infos;
  std::vector<std::vector<float>> values;
  for (const Entry& entry : entries) {
    infos.push_back({entry.name + ".in_sum2", DType::F32, entry.sums_shape});
    values.push_back(entry.sums);
    if (!with_counts) continue;
    infos.push_back({entry.name + ".counts", DType::F32, {entry.counts.size(), 1}});
    values.push_back(entry.counts);
  }
  std::string path = folder.file("imatrix.gguf");
  const GgufPlan plan(metadata, infos);
  GgufWriter writer(path, plan, metadata, true);
  for (size_t i = 0; i < values.size(); ++i)
    writer.write_tensor(
        i, 0, {reinterpret_cast<const uint8_t*>(values[i].data()), values[i].size() * sizeof(float)});
  writer.finish();
  return path;
}

std::string legacy(const std::vector<Entry>& entries, bool with_end = true) {
  std::string bytes;
  const auto number = [&](size_t value) {
    const auto v = static_cast<int32_t>(value);
    bytes.append(reinterpret_cast<const char*>(&v), sizeof v);
  };
  number(entries.size());
  for (const Entry& entry : entries) {
    number(entry.name.size());
    bytes += entry.name;
    number(static_cast<size_t>(entry.counts.front()));
    number(entry.sums.size());
    bytes.append(reinterpret_cast<const char*>(entry.sums.data()), entry.sums.size() * sizeof(float));
  }
  if (!with_end) return bytes;
  number(8);
  number(5);
  return bytes + "a.txt";
}

std::string error_of(const std::string& path) {
  try {
    const ImportanceFile file(path);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kMalformed);
    return error.what();
  }
  return "no error";
}

TEST(ImportanceFile, IsTheMeanOfEachColumnPerMatrix) {
  const TempFolder folder;
  const ImportanceFile file(
      write_gguf(folder, {{"blk.0.attn_q.weight", {1, 3}, {2, 0, 6}, {4}},
                          {"blk.0.ffn_up_exps.weight", {3, 2}, {1, 2, 0, 0, 9, 6}, {2, 0, 3}}}));
  EXPECT_EQ(file.n_entries(), 2u);
  EXPECT_EQ(file.n_chunks(), 8u);
  EXPECT_EQ(file.dataset(), "a.txt");
  const Importance* q = file.find("blk.0.attn_q.weight", {7, 3});
  ASSERT_NE(q, nullptr);
  EXPECT_EQ(q->weights, (std::vector<float>{0.5f, 0, 1.5f}));
  const Importance* up = file.find("blk.0.ffn_up_exps.weight", {3, 5, 2});
  ASSERT_NE(up, nullptr);
  EXPECT_EQ(up->weights, (std::vector<float>{0.5f, 1, 1, 1, 3, 2})) << "an expert never chosen weighs alike";
  EXPECT_EQ(up->never_chosen, (std::vector<uint64_t>{1}));
  EXPECT_EQ(file.find("blk.0.attn_k.weight", {7, 3}), nullptr);
}

TEST(ImportanceFile, ReadsTheOlderFormat) {
  const TempFolder folder;
  for (const bool with_end : {true, false}) {
    const ImportanceFile file(folder.write(
        "a.dat", legacy({{"x.weight", {}, {2, 4, 6, 8}, {2}}, {"y.weight", {}, {5}, {0}}}, with_end)));
    EXPECT_EQ(file.n_chunks(), with_end ? 8u : 0u);
    EXPECT_EQ(file.dataset(), with_end ? "a.txt" : "");
    const Importance* x = file.find("x.weight", {2, 9, 2});
    ASSERT_NE(x, nullptr);
    EXPECT_EQ(x->weights, (std::vector<float>{1, 2, 3, 4}));
    EXPECT_EQ(file.find("y.weight")->weights, (std::vector<float>{5}));
  }
}

TEST(ImportanceFile, EveryShorterFileEndsInOneLine) {
  const TempFolder folder;
  const std::string whole = legacy({{"x.weight", {}, {2, 4}, {2}}, {"y.weight", {}, {5}, {1}}});
  const size_t without_end =
      legacy({{"x.weight", {}, {2, 4}, {2}}, {"y.weight", {}, {5}, {1}}}, false).size();
  for (size_t n = 0; n < whole.size(); ++n) {
    const std::string error = error_of(folder.write("a.dat", whole.substr(0, n)));
    const bool complete = n == without_end || n == without_end + 4;
    EXPECT_EQ(error == "no error", complete) << n << ": " << error;
  }
}

TEST(ImportanceFile, NamesTheTensorWhoseSumsAreNoImportance) {
  const TempFolder folder;
  const std::string name = "blk.7.ffn_down.weight";
  for (const float bad : {NAN, INFINITY, -1.0f})
    EXPECT_NE(error_of(write_gguf(folder, {{name, {1, 2}, {1, bad}, {3}}})).find(name), std::string::npos);
  EXPECT_NE(error_of(write_gguf(folder, {{name, {1, 2}, {0, 0}, {3}}})).find(name), std::string::npos);
  EXPECT_NE(error_of(write_gguf(folder, {{name, {1, 2}, {1, 1}, {NAN}}})).find(name), std::string::npos);
  EXPECT_NE(error_of(write_gguf(folder, {{name, {1, 3}, {1, 1, 1}, {3, 3}}})).find(name), std::string::npos);
  EXPECT_NE(error_of(write_gguf(folder, {{name, {1, 2}, {1, 1}, {3}}}, false)).find("counts"),
            std::string::npos);
  EXPECT_NE(error_of(write_gguf(folder, {})).find("in_sum2"), std::string::npos);
}

TEST(ImportanceFile, OfAnotherShapeIsAnotherModels) {
  const TempFolder folder;
  const ImportanceFile file(write_gguf(folder, {{"a.weight", {1, 4}, {1, 1, 1, 1}, {1}}}));
  EXPECT_NE(file.find("a.weight", {9, 4}), nullptr);
  for (const Shape& shape : {Shape{9, 3}, Shape{2, 9, 4}, Shape{9, 8}}) {
    try {
      file.find("a.weight", shape);
      ADD_FAILURE() << to_string(shape);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kMalformed);
      EXPECT_NE(std::string(error.what()).find("a.weight"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace quern
