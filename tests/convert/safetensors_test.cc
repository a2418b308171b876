#include "convert/safetensors.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "quant/error.h"
#include "tests/support/checkpoints.h"

namespace quern {
namespace {

std::string with_header(const std::string& header, size_t data_bytes = 0) {
  std::string file;
  for (int shift = 0; shift < 64; shift += 8)
    file += static_cast<char>(uint64_t{header.size()} >> shift & 0xFF);
  return file + header + std::string(data_bytes, '\0');
}

SafetensorsHeader read(const std::string& file) {
  return read_safetensors_header({reinterpret_cast<const uint8_t*>(file.data()), file.size()},
                                 "x.safetensors");
}

std::string error_of(const std::string& file) {
  try {
    read(file);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kMalformed);
    return e.what();
  }
  return "accepted";
}

struct Case {
  std::string header;
  size_t data_bytes;
  std::string expected;  // part of the message
};

TEST(Safetensors, ReadsTensorsInOrderOfTheirData) {
  const std::string header =
      R"({"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},"__metadata__":{"format":"pt"},)"
      R"("a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}, "e":{"dtype":"F16","shape":[0,5],)"
      R"("data_offsets":[16,16]}})";
  const SafetensorsHeader read_header = read(with_header(header, 16));
  ASSERT_EQ(read_header.tensors.size(), 3u);
  EXPECT_EQ(read_header.data_offset, 8 + header.size());
  EXPECT_EQ(read_header.tensors[0].name, "a");
  EXPECT_EQ(read_header.tensors[0].shape, Shape{});
  EXPECT_EQ(read_header.tensors[1].name, "b");
  EXPECT_EQ(read_header.tensors[1].shape, (Shape{2, 3}));
  EXPECT_EQ(read_header.tensors[1].type->dtype, DType::BF16);
  EXPECT_EQ(read_header.tensors[1].begin, read_header.data_offset + 4);
  EXPECT_EQ(read_header.tensors[1].end, read_header.data_offset + 16);
  EXPECT_EQ(read_header.tensors[2].begin, read_header.tensors[2].end);
  EXPECT_EQ(read_header.metadata, (std::vector<std::pair<std::string, std::string>>{{"format", "pt"}}));
}

TEST(Safetensors, AcceptsEveryTypeOfTheFormat) {
  for (const SafetensorsDType& type : safetensors_dtypes()) {
    const std::string header = R"({"t":{"dtype":")" + std::string(type.name) +
                               R"(","shape":[8],"data_offsets":[0,)" + std::to_string(type.bits) + "]}}";
    EXPECT_EQ(error_of(with_header(header, type.bits)), "accepted") << type.name;
  }
}

TEST(Safetensors, RefusesWhatBreaksTheFormat) {
  const std::vector<Case> cases = {
      {R"([])", 0, "expected a JSON object"},
      {R"({"__metadata__":{"a":1}})", 0, "__metadata__ 'a' must be a string"},
      {R"({"__metadata__":[]})", 0, "__metadata__ must be an object"},
      {R"({"t":3})", 0, "tensor 't': expected a JSON object"},
      {R"({"t":{"shape":[4],"data_offsets":[0,4]}})", 4, "dtype is missing"},
      {R"({"t":{"dtype":"u8","shape":[4],"data_offsets":[0,4]}})", 4, "unknown dtype \"u8\""},
      {R"({"t":{"dtype":"U8","data_offsets":[0,4]}})", 4, "shape is missing"},
      {R"({"t":{"dtype":"U8","shape":4,"data_offsets":[0,4]}})", 4, "shape is missing or not an array"},
      {R"({"t":{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}})", 4, "shape must hold"},
      {R"({"t":{"dtype":"U8","shape":[4.0],"data_offsets":[0,4]}})", 4, "shape must hold"},
      {R"({"t":{"dtype":"U8","shape":["4"],"data_offsets":[0,4]}})", 4, "shape must hold"},
      {R"({"t":{"dtype":"U8","shape":[4]}})", 4, "data_offsets is missing"},
      {R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[0]}})", 4, "data_offsets must be two"},
      {R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4,4]}})", 4, "data_offsets must be two"},
      {R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}})", 4, "data_offsets [4, 0] run backwards"},
      {R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[0,5]}})", 5, "needs 4 bytes"},
      {R"({"t":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", 2, "not a whole number of bytes"},
      {R"({"t":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0, "overflow"},
      {R"({"t":{"dtype":"U8","shape":[2305843009213693952],"data_offsets":[0,0]}})", 0, "overflow"},
      {R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})", 8, "gap or overlap"},
      {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
       R"("b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
       6, "gap or overlap"},
      {R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 5, "not fully covered"},
      {R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 3, "file is truncated"},
      {R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
       R"("t":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
       8, "duplicate key 't'"},
      {R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"x":[[[[[[[[]]]]]]]]}})", 4, "nested deeper"},
  };
  for (const Case& c : cases) {
    EXPECT_NE(error_of(with_header(c.header, c.data_bytes)).find(c.expected), std::string::npos)
        << c.header << "\n"
        << error_of(with_header(c.header, c.data_bytes));
  }
}

TEST(Safetensors, IgnoresUnknownFieldsOfATensor) {
  EXPECT_EQ(error_of(with_header(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"z":{"y":[]}}})", 1)),
            "accepted");
}

TEST(Safetensors, EveryShorterFileFailsCleanly) {
  const std::string file =
      test::safetensors_file({{"a", "F32", {2, 2}, std::string(16, 'x')}, {"b", "BF16", {3}, "abcdef"}});
  ASSERT_EQ(error_of(file), "accepted");
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_NE(error_of(file.substr(0, size)), "accepted") << size;
  }
}

TEST(Safetensors, SaysWhatADownloadLeftInItsPlace) {
  EXPECT_NE(
      error_of("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n").find("git lfs pull"),
      std::string::npos);
  EXPECT_NE(error_of("<!DOCTYPE html><html>404</html>").find("HTML page"), std::string::npos);
  EXPECT_NE(error_of("<!DOCTYPE html><html>404</html>").find("header too large"), std::string::npos);
  EXPECT_NE(error_of(std::string(4096, '\0')).find("unfinished download"), std::string::npos);
}

}  // namespace
}  // namespace quern
