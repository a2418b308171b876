#include "quant/gguf_writer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include "quant/gguf_reader.h"
#include "quant/mapped_file.h"
#include "tests/quant/gguf_bytes.h"
#include "tests/support/temp_folder.h"

namespace quern {
namespace {

using test::expect_error;
using test::FileBytes;
using test::read_file;
using test::TempFolder;

std::string as_string(const FileBytes& file) { return {file.bytes().begin(), file.bytes().end()}; }

std::vector<uint8_t> counting_bytes(size_t n) {
  std::vector<uint8_t> bytes(n);
  std::iota(bytes.begin(), bytes.end(), uint8_t{1});
  return bytes;
}

void write_file(const std::string& target, const GgufMetadata& metadata, std::vector<GgufTensorInfo> tensors,
                uint64_t alignment = 32) {
  const GgufPlan plan(metadata, std::move(tensors), alignment);
  GgufWriter writer(target, plan, metadata, false);
  for (size_t i = 0; i < plan.tensors.size(); ++i) writer.write_tensor(i, 0, counting_bytes(plan.sizes[i]));
  writer.finish();
}

TEST(GgufWriter, WritesTheBytesOfTheSpecification) {
  GgufMetadata metadata;
  metadata.set_string("general.architecture", "llama");
  metadata.set_u32("a.u32", 7);
  metadata.set_f32("a.f32", 1.5f);
  metadata.set_bool("a.bool", true);
  metadata.set_strings("a.strings", std::vector<std::string>{"x", "", "yz"});
  metadata.set_floats("a.floats", std::vector<float>{-0.0f, 2.0f});
  metadata.set_int32s("a.ints", std::vector<int32_t>{-1});
  const TempFolder folder;
  write_file(folder.file("a"), metadata, {{"m", DType::Q4_0, {2, 32}}, {"v", DType::F32, {3}}});

  FileBytes expected;
  expected.header(2, 7);
  expected.text("general.architecture").u32(8).text("llama");
  expected.text("a.u32").u32(4).u32(7);
  expected.text("a.f32").u32(6).number(1.5f);
  expected.text("a.bool").u32(7).u8(1);
  expected.text("a.strings").u32(9).u32(8).u64(3).text("x").text("").text("yz");
  expected.text("a.floats").u32(9).u32(6).u64(2).number(-0.0f).number(2.0f);
  expected.text("a.ints").u32(9).u32(5).u64(1).number(int32_t{-1});
  expected.tensor("m", {32, 2}, 2, 0).tensor("v", {3}, 0, 64);
  expected.pad(32);
  for (const uint8_t byte : counting_bytes(36)) expected.u8(byte);
  expected.pad(32);
  for (const uint8_t byte : counting_bytes(12)) expected.u8(byte);
  expected.pad(32);
  EXPECT_EQ(read_file(folder.file("a")), as_string(expected));
}

// Every type of value, alone and in arrays of none and of two.
FileBytes file_with_every_type() {
  FileBytes entries;
  uint64_t n = 0;
  const auto value = [&](uint32_t type, uint8_t seed) {
    const size_t size = size_of(static_cast<GgufType>(type));
    if (type == static_cast<uint32_t>(GgufType::kString)) {
      entries.text(std::string("\0nul \xFF", 6) + static_cast<char>(seed));
    } else if (type == static_cast<uint32_t>(GgufType::kBool)) {
      entries.u8(seed % 2);
    } else {
      for (size_t i = 0; i < size; ++i) entries.u8(static_cast<uint8_t>(seed * 37 + i));
    }
  };
  for (uint32_t type = 0; type <= 12; ++type) {
    if (type == static_cast<uint32_t>(GgufType::kArray)) continue;
    const std::string name(to_string(static_cast<GgufType>(type)));
    entries.text("scalar." + name).u32(type);
    value(type, 200);
    entries.text("empty." + name).u32(9).u32(type).u64(0);
    entries.text("pair." + name).u32(9).u32(type).u64(2);
    value(type, 1);
    value(type, 250);
    n += 3;
  }
  FileBytes file;
  file.header(0, n).raw({reinterpret_cast<const char*>(entries.bytes().data()), entries.size()});
  return file.pad(32);
}

TEST(GgufWriter, CopiesEveryTypeOfValueByteForByte) {
  const FileBytes original = file_with_every_type();
  const GgufReader gguf(original.bytes(), "original");
  GgufMetadata metadata;
  for (const auto& entry : gguf.metadata()) metadata.set_value(entry.key, entry.value);
  const TempFolder folder;
  write_file(folder.file("copy"), metadata, {});
  EXPECT_EQ(read_file(folder.file("copy")), as_string(original));
}

TEST(GgufWriter, WritesWhatTheReaderReads) {
  std::vector<GgufTensorInfo> tensors;
  for (const BlockFormat& format : block_formats()) {
    tensors.push_back({fmt::format("t.{}", format.name), format.dtype, {3, 2 * format.block_weights}});
  }
  GgufMetadata metadata;
  metadata.set_u32("general.alignment", 128);
  metadata.set_strings("s", std::vector<std::string>{"one", "two"});
  const TempFolder folder;
  write_file(folder.file("a"), metadata, tensors, 128);
  const MappedFile file(folder.file("a"));
  const GgufReader gguf(file.bytes(), file.path(), [](std::string_view line) { ADD_FAILURE() << line; });
  EXPECT_EQ(gguf.alignment(), 128u);
  EXPECT_EQ(gguf.find("s")->as_strings(), (std::vector<std::string_view>{"one", "two"}));
  ASSERT_EQ(gguf.tensors().size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorView& tensor = gguf.tensors()[i];
    EXPECT_EQ(tensor.name, tensors[i].name);
    EXPECT_EQ(tensor.dtype, tensors[i].dtype);
    EXPECT_EQ(tensor.shape, tensors[i].shape);
    const std::vector<uint8_t> expected = counting_bytes(tensor.n_bytes);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), tensor.data)) << tensor.name;
  }
  EXPECT_EQ(file.bytes().size() % 128, 0u);  // the last padding is there
}

TEST(GgufWriter, TakesATensorInPiecesOfAnyOrder) {
  const TempFolder folder;
  const GgufMetadata metadata;
  const GgufPlan plan(metadata, {{"a", DType::F32, {10}}, {"b", DType::F32, {10}}});
  GgufWriter writer(folder.file("a"), plan, metadata, false);
  const std::vector<uint8_t> bytes = counting_bytes(40);
  writer.write_tensor(1, 0, bytes);
  writer.write_tensor(0, 25, std::span(bytes).subspan(25));
  writer.write_tensor(0, 0, std::span(bytes).first(25));
  writer.finish();
  const MappedFile file(folder.file("a"));
  const GgufReader gguf(file.bytes(), file.path());
  for (const TensorView& tensor : gguf.tensors()) {
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), tensor.data)) << tensor.name;
  }
}

// What this process has open in the folder, with a name or without one.
std::string open_file_in(const TempFolder& folder) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code ignored;
    const std::string target = std::filesystem::read_symlink(entry.path(), ignored).string();
    if (target.starts_with(folder.path().string() + "/")) return read_file(entry.path());
  }
  return "";
}

TEST(GgufWriter, LeavesNothingThatLooksLikeAModelBeforeItIsFinished) {
  const TempFolder folder;
  GgufMetadata metadata;
  metadata.set_string("general.architecture", "llama");
  const GgufPlan plan(metadata, {{"a", DType::F32, {1000}}});
  {
    GgufWriter writer(folder.file("a"), plan, metadata, false);
    writer.write_tensor(0, 0, counting_bytes(4000));
    const std::string unfinished = open_file_in(folder);
    EXPECT_EQ(unfinished.size(), plan.file_size);
    EXPECT_EQ(unfinished.substr(0, 24), std::string(24, '\0'));
  }
  EXPECT_TRUE(folder.names().empty());
}

TEST(GgufWriter, WritesValuesThatWereFilledInMeanwhile) {
  const TempFolder folder;
  GgufMetadata metadata;
  metadata.set_string("sum", std::string(8, '?'));
  metadata.set_u32("last", 1);
  const GgufPlan plan(metadata, {{"a", DType::F32, {1}}});
  GgufWriter writer(folder.file("a"), plan, metadata, false);
  metadata.set_string("sum", "01234567");
  writer.finish();
  const MappedFile file(folder.file("a"));
  const GgufReader gguf(file.bytes(), file.path());
  EXPECT_EQ(gguf.require_string("sum"), "01234567");
  EXPECT_EQ(gguf.metadata()[0].key, "sum");
}

TEST(GgufWriter, ReplacesATargetOnlyWhenAsked) {
  const TempFolder folder;
  const GgufMetadata metadata;
  const GgufPlan plan(metadata, {});
  const std::string target = folder.write("a", "old");
  expect_error(ErrorCode::kUsage, "exists already", [&] { GgufWriter(target, plan, metadata, false); });
  GgufWriter(target, plan, metadata, true).finish();
  EXPECT_EQ(read_file(target).substr(0, 4), "GGUF");
}

TEST(GgufPlan, KnowsEveryPlaceBeforeTheFirstByte) {
  GgufMetadata metadata;
  metadata.set_u32("k", 1);
  const GgufPlan plan(metadata, {{"a", DType::F32, {4, 8}}, {"b", DType::Q8_0, {1, 32}}});
  const size_t header = 24 + (8 + 1 + 4 + 4) + 2 * (8 + 1 + 4 + 2 * 8 + 4 + 8);
  EXPECT_EQ(plan.data_offset, (header + 31) / 32 * 32);
  EXPECT_EQ(plan.sizes, (std::vector<uint64_t>{128, 34}));
  EXPECT_EQ(plan.offsets, (std::vector<uint64_t>{plan.data_offset, plan.data_offset + 128}));
  EXPECT_EQ(plan.file_size, plan.data_offset + 128 + 64);
}

TEST(GgufPlan, RefusesTensorsThatGgufCannotHold) {
  const GgufMetadata metadata;
  const auto refuses = [&](const GgufTensorInfo& tensor, std::string_view part) {
    expect_error(ErrorCode::kMalformed, part, [&] { GgufPlan(metadata, {tensor}); });
  };
  refuses({std::string(64, 'n'), DType::F32, {1}}, "has 64 bytes, a GGUF file takes 1 to 63");
  refuses({"", DType::F32, {1}}, "has 0 bytes");
  refuses({"x", DType::F32, {}}, "tensor 'x' with shape []");
  refuses({"x", DType::F32, {1, 1, 1, 1, 1}}, "tensor 'x' with shape [1, 1, 1, 1, 1]");
  refuses({"x", DType::F32, {4, 0}}, "[4, 0] cannot be written as F32");
  refuses({"x", DType::Q4_0, {32, 33}}, "[32, 33] cannot be written as Q4_0");
  refuses({"x", DType::F32, {uint64_t{1} << 62}}, "cannot be written");
  const GgufTensorInfo half{"x", DType::F32, {uint64_t{1} << 61}};
  expect_error(ErrorCode::kMalformed, "larger than 64 bits", [&] { GgufPlan(metadata, {half, half}); });
}

TEST(GgufPlanDeathTest, InsistsOnTheAlignmentThatReadersWillFind) {
  GgufMetadata metadata;
  EXPECT_DEATH(GgufPlan(metadata, {}, 64), "internal error");
  metadata.set_u32("general.alignment", 64);
  EXPECT_DEATH(GgufPlan(metadata, {}), "internal error");
}

TEST(GgufMetadata, KeepsOrderReplacesInPlaceAndErases) {
  GgufMetadata metadata;
  for (const char* key : {"a", "b", "c", "d"}) metadata.set_u32(key, 1);
  metadata.set_string("b", "two");
  metadata.erase("a");
  metadata.erase("absent");
  metadata.set_u32("c", 3);
  metadata.set_u32("a", 4);
  std::string keys;
  for (const auto& entry : metadata.entries()) keys += entry.key;
  EXPECT_EQ(keys, "bcda");
  EXPECT_TRUE(metadata.contains("b"));
  EXPECT_FALSE(metadata.contains("e"));
  EXPECT_EQ(metadata.entries()[0].encoded, FileBytes().u32(8).text("two").bytes());
  EXPECT_EQ(metadata.entries()[1].encoded, FileBytes().u32(4).u32(3).bytes());
  EXPECT_EQ(metadata.entries()[2].encoded, FileBytes().u32(4).u32(1).bytes());
}

TEST(GgufMetadataDeathTest, RefusesInvalidKeys) {
  GgufMetadata metadata;
  EXPECT_DEATH(metadata.set_u32("", 1), "internal error");
  EXPECT_DEATH(metadata.set_u32("a b", 1), "internal error");
}

TEST(GgufValue, ConvertsOnlyToItsOwnKind) {
  const std::vector<uint8_t> number = FileBytes().u32(1).bytes(), text = FileBytes().text("abc").bytes();
  const GgufValue u32{GgufType::kU32, GgufType::kU8, 1, number};
  const GgufValue f32{GgufType::kF32, GgufType::kU8, 1, number};
  const GgufValue i32s{GgufType::kArray, GgufType::kI32, 1, number};
  const GgufValue string{GgufType::kString, GgufType::kU8, 1, text};
  const GgufValue strings{GgufType::kArray, GgufType::kString, 1, text};
  EXPECT_EQ(u32.as_uint(), 1u);
  EXPECT_EQ(string.as_string(), "abc");
  EXPECT_EQ(strings.as_strings(), std::vector<std::string_view>{"abc"});
  EXPECT_EQ(i32s.as_int32s(), std::vector<int32_t>{1});
  EXPECT_TRUE(f32.as_float());
  EXPECT_FALSE(u32.as_float() || u32.as_bool() || u32.as_string() || u32.as_int32s() || u32.as_strings());
  EXPECT_FALSE(f32.as_uint() || f32.as_int() || f32.as_floats());
  EXPECT_FALSE(i32s.as_uint() || i32s.as_floats() || i32s.as_strings());
  EXPECT_FALSE(string.as_strings() || string.as_uint());
  EXPECT_FALSE(strings.as_string() || strings.as_floats());
}

}  // namespace
}  // namespace quern
