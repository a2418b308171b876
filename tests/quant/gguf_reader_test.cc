#include "quant/gguf_reader.h"

#include <gtest/gtest.h>

#include <chrono>
#include <limits>
#include <string>
#include <vector>

#include "quant/checked_math.h"
#include "quant/panel_layout.h"
#include "tests/quant/gguf_bytes.h"

namespace quern {
namespace {

using test::expect_error;
using test::FileBytes;
using namespace std::string_literals;

constexpr uint32_t kU8 = 0, kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kString = 8, kArray = 9, kU64 = 10;
constexpr uint32_t kTypeF32 = 0, kTypeQ4_0 = 2, kTypeQ8_0 = 8;

GgufReader read(const FileBytes& file, const Notice& notice = {}) {
  return GgufReader(file.bytes(), "test.gguf", notice);
}

void expect_refused(const FileBytes& file, std::string_view part) {
  expect_error(ErrorCode::kMalformed, part, [&] { read(file); });
}

// Two tensors, three keys; the second tensor's data end at kDataEnd.
constexpr size_t kDataEnd = 0x180 + 36;
FileBytes base_file() {
  FileBytes file;
  file.header(2, 3);
  file.text("general.architecture").u32(kString).text("llama");
  file.text("general.alignment").u32(kU32).u32(32);
  file.text("test.array").u32(kArray).u32(kI32).u64(3).u32(1).u32(2).u32(3);
  file.tensor("a.weight", {8, 4}, kTypeF32, 0);
  file.tensor("b.weight", {32, 2}, kTypeQ4_0, 128);
  file.pad(32);
  for (size_t i = 0; i < 128 + 64; ++i) file.u8(static_cast<uint8_t>(i));
  return file;
}

// A file whose metadata is `entries`, written by the caller behind the header.
FileBytes with_keys(uint64_t n_keys, const FileBytes& entries) {
  FileBytes file;
  file.header(0, n_keys);
  file.raw({reinterpret_cast<const char*>(entries.bytes().data()), entries.size()});
  return file.zeros(64);
}

FileBytes with_key(std::string_view key) { return with_keys(1, FileBytes().text(key).u32(kU8).u8(1)); }

// Metadata-free, with tensor entries and `data_size` bytes of data.
FileBytes with_tensors(uint64_t n_tensors, const FileBytes& infos, size_t data_size) {
  FileBytes file;
  file.header(n_tensors, 0);
  file.raw({reinterpret_cast<const char*>(infos.bytes().data()), infos.size()});
  return file.pad(32).zeros(data_size);
}

TEST(GgufReader, ReadsHeaderMetadataAndTensors) {
  const FileBytes file = base_file();
  std::vector<std::string> notices;
  const GgufReader gguf = read(file, [&](std::string_view line) { notices.emplace_back(line); });
  EXPECT_TRUE(notices.empty());
  EXPECT_EQ(gguf.version(), 3u);
  EXPECT_EQ(gguf.alignment(), 32u);
  EXPECT_EQ(gguf.data_offset(), 0x100u);
  EXPECT_EQ(gguf.file_size(), file.size());
  ASSERT_EQ(gguf.metadata().size(), 3u);
  EXPECT_EQ(gguf.metadata()[0].key, "general.architecture");
  EXPECT_EQ(gguf.metadata()[2].key, "test.array");
  EXPECT_EQ(gguf.require_string("general.architecture"), "llama");
  EXPECT_EQ(gguf.find("test.array")->as_int32s(), (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(gguf.find("absent"), nullptr);

  ASSERT_EQ(gguf.tensors().size(), 2u);
  const TensorView& a = gguf.tensors()[0];
  EXPECT_EQ(a.name, "a.weight");
  EXPECT_EQ(a.dtype, DType::F32);
  EXPECT_EQ(a.data, file.bytes().data() + 0x100);
  EXPECT_EQ(a.n_bytes, 128u);
  const TensorView* b = gguf.find_tensor("b.weight");
  ASSERT_EQ(b, &gguf.tensors()[1]);
  EXPECT_EQ(b->dtype, DType::Q4_0);
  EXPECT_EQ(b->data, file.bytes().data() + 0x180);
  EXPECT_EQ(b->n_bytes, 36u);
  EXPECT_EQ(gguf.find_tensor("c.weight"), nullptr);
}

TEST(GgufReader, TurnsDimensionsRound) {
  const FileBytes file = with_tensors(1, FileBytes().tensor("x", {2, 3, 4, 5}, kTypeF32, 0), 480);
  const GgufReader gguf = read(file);
  EXPECT_EQ(gguf.tensors()[0].shape, (Shape{5, 4, 3, 2}));
  EXPECT_EQ(gguf.tensors()[0].columns(), 2u);
  EXPECT_EQ(gguf.tensors()[0].rows(), 60u);
}

TEST(GgufReader, FailsCleanlyOnEveryShorterFile) {
  const std::vector<uint8_t> whole = base_file().bytes();
  for (size_t size = 0; size < whole.size(); ++size) {
    const std::vector<uint8_t> bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    if (size < kDataEnd) {
      expect_error(ErrorCode::kMalformed, "test.gguf: ", [&] { GgufReader(bytes, "test.gguf"); });
    } else {
      EXPECT_NO_THROW(GgufReader(bytes, "test.gguf")) << size;  // the last padding is optional
    }
  }
}

TEST(GgufReader, NeverHandsOutBytesOutsideTheFileWhateverOneByteHolds) {
  const std::vector<uint8_t> whole = base_file().bytes();
  size_t n_read = 0;
  for (size_t at = 0; at < 0x100; ++at) {
    for (int value = 0; value < 256; ++value) {
      std::vector<uint8_t> bytes = whole;
      bytes[at] = static_cast<uint8_t>(value);
      try {
        const GgufReader gguf(bytes, "test.gguf");
        for (const TensorView& tensor : gguf.tensors()) {
          ASSERT_GE(tensor.data, bytes.data());
          ASSERT_LE(tensor.data + tensor.n_bytes, bytes.data() + bytes.size());
        }
        for (const auto& entry : gguf.metadata()) {
          ASSERT_GE(entry.value.payload.data(), bytes.data());
          ASSERT_LE(entry.value.payload.data() + entry.value.payload.size(), bytes.data() + bytes.size());
        }
        ++n_read;
      } catch (const Error& error) {
        ASSERT_EQ(error.code(), ErrorCode::kMalformed) << error.what();
      }
    }
  }
  EXPECT_GT(n_read, 256u);  // the file as it is, and those where a name or a number is another
}

TEST(GgufReader, GivesPathProblemAndOffsetInMessages) {
  try {
    const FileBytes file = FileBytes().header(0, 0, 9).zeros(8);
    const GgufReader reader(file.bytes(), "odd\x1Bname.gguf");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "odd\\x1Bname.gguf: unsupported GGUF version 9: expected 2 or 3 (offset 0x4)");
  }
}

TEST(GgufReader, EscapesTextOfTheFileInMessages) {
  expect_refused(with_key("a\x1B[2J"), "invalid character in key 'a\\x1B[2J'");
}

// --- R2: header

TEST(GgufReader, RefusesAHeaderThatIsCutOff) {
  for (const size_t size : {0, 1, 3, 4, 7, 8, 16, 23}) {
    std::vector<uint8_t> bytes = FileBytes().header(0, 0).bytes();
    bytes.resize(size);
    expect_error(ErrorCode::kMalformed, "truncated header", [&] { GgufReader(bytes, "test.gguf"); });
  }
}

TEST(GgufReader, AcceptsAFileWithoutKeysAndTensors) {
  const FileBytes file = FileBytes().header(0, 0);
  const GgufReader gguf = read(file);
  EXPECT_TRUE(gguf.metadata().empty());
  EXPECT_TRUE(gguf.tensors().empty());
}

TEST(GgufReader, NamesOtherKindsOfFiles) {
  expect_refused(FileBytes().raw("version https://git-lfs.github.com/spec/v1\noid sha256:0"),
                 "git-lfs pointer");
  expect_refused(FileBytes().raw("<!DOCTYPE html>\n<html>..."), "an HTML page");
  expect_refused(FileBytes().raw("\n <HTML lang=en>"), "an HTML page");
  for (const char* magic : {"tjgg", "fmgg", "lmgg", "algg"}) {
    expect_refused(FileBytes().raw(magic).zeros(60), "old GGML/GGJT file");
  }
  expect_refused(FileBytes().raw("PK\x03\x04 a zip file"), "not a GGUF file: magic 'PK\\x03\\x04'");
  expect_refused(FileBytes().raw("gguf").zeros(60), "not a GGUF file");
}

TEST(GgufReader, AcceptsVersions2And3Only) {
  for (const uint32_t version : {2u, 3u}) {
    const FileBytes file = FileBytes().header(0, 0, version);
    EXPECT_EQ(read(file).version(), version);
  }
  expect_refused(FileBytes().header(0, 0, 0), "unsupported GGUF version 0");
  expect_refused(FileBytes().header(0, 0, 1), "GGUF v1 is not supported");
  expect_refused(FileBytes().header(0, 0, 4), "unsupported GGUF version 4");
  expect_refused(FileBytes().header(0, 0, UINT32_MAX), "unsupported GGUF version 4294967295");
  expect_refused(FileBytes().header(0, 0, 0x03000000), "big-endian GGUF not supported");
}

// --- R3: counts

TEST(GgufReader, RefusesCountsThatTheFileCannotHold) {
  for (const uint64_t count : {uint64_t{27}, uint64_t{1} << 32, uint64_t{1} << 63, UINT64_MAX,
                               uint64_t{0x555555555555556}, uint64_t{0xAE4C415C9882BA}}) {
    expect_refused(FileBytes().header(count, 0).zeros(13 * 26), "tensor count");
    expect_refused(FileBytes().header(0, count).zeros(13 * 26), "metadata count");
  }
  expect_refused(FileBytes().header(1'000'001, 0).zeros(24 * 1'000'001), "tensor count");
}

// --- R4: strings and keys

TEST(GgufReader, RefusesKeysOfAWrongLength) {
  for (const uint64_t length : {uint64_t{1000}, uint64_t{1} << 63, UINT64_MAX, UINT64_MAX - 31}) {
    expect_refused(FileBytes().header(0, 1).u64(length).zeros(100), "key length");
  }
  expect_refused(with_key(""), "empty key");
  expect_refused(with_key(std::string(65536, 'k')), "key too long");
  EXPECT_EQ(read(with_key(std::string(65535, 'k'))).metadata().size(), 1u);
}

TEST(GgufReader, AcceptsPrintableAsciiKeysOnly) {
  for (int c = 0; c < 256; ++c) {
    const std::string key = "k"s + static_cast<char>(c);
    if (c >= 0x21 && c <= 0x7E) {
      EXPECT_NO_THROW(read(with_key(key))) << c;
    } else {
      expect_refused(with_key(key), "invalid character in key");
    }
  }
}

TEST(GgufReader, RefusesDuplicateKeys) {
  FileBytes entries;
  for (const char* key : {"a", "b", "a"}) entries.text(key).u32(kU8).u8(0);
  expect_refused(with_keys(3, entries), "duplicate key 'a' (offset 0x34)");
}

TEST(GgufReader, RefusesStringsThatReachPastTheEnd) {
  for (const uint64_t length : {uint64_t{65}, uint64_t{1} << 40, uint64_t{1} << 63, UINT64_MAX}) {
    expect_refused(with_keys(1, FileBytes().text("k").u32(kString).u64(length)), "string length");
    expect_refused(with_keys(1, FileBytes().text("k").u32(kArray).u32(kString).u64(2).text("").u64(length)),
                   "string length");
  }
}

// --- R5: value types

TEST(GgufReader, RefusesUnknownValueTypes) {
  for (const uint32_t type : {13u, 14u, 255u, UINT32_MAX}) {
    expect_refused(with_keys(1, FileBytes().text("k").u32(type)), fmt::format("metadata type {}", type));
    expect_refused(with_keys(1, FileBytes().text("k").u32(kArray).u32(type).u64(0)),
                   fmt::format("metadata type {}", type));
  }
}

TEST(GgufReader, RefusesNestedArrays) {
  expect_refused(with_keys(1, FileBytes().text("k").u32(kArray).u32(kArray).u64(1)),
                 "nested array in key 'k'");
}

TEST(GgufReader, RefusesArraysThatReachPastTheEnd) {
  for (uint32_t type = 0; type <= 12; ++type) {
    if (type == kArray) continue;
    for (const uint64_t count :
         {uint64_t{65}, uint64_t{1} << 30, uint64_t{1} << 61, uint64_t{1} << 62, UINT64_MAX}) {
      expect_refused(with_keys(1, FileBytes().text("k").u32(kArray).u32(type).u64(count)), "array length");
    }
    EXPECT_NO_THROW(read(with_keys(1, FileBytes().text("k").u32(kArray).u32(type).u64(0)))) << type;
  }
}

TEST(GgufReader, RefusesBoolsOtherThan0And1) {
  for (int value = 0; value < 256; ++value) {
    const auto byte = static_cast<uint8_t>(value);
    const FileBytes scalar = with_keys(1, FileBytes().text("k").u32(kBool).u8(byte));
    const FileBytes array = with_keys(1, FileBytes().text("k").u32(kArray).u32(kBool).u64(2).u8(1).u8(byte));
    if (value <= 1) {
      EXPECT_EQ(read(scalar).bool_or("k", false), value == 1);
      EXPECT_NO_THROW(read(array));
    } else {
      expect_refused(scalar, "bool of key 'k'");
      expect_refused(array, "bool of key 'k'");
    }
  }
}

// --- R7: alignment

TEST(GgufReader, AcceptsPowersOfTwoFrom8To65536AsAlignment) {
  for (uint32_t shift = 0; shift < 32; ++shift) {
    const uint32_t alignment = 1u << shift;
    const FileBytes file = with_keys(1, FileBytes().text("general.alignment").u32(kU32).u32(alignment));
    if (alignment >= 8 && alignment <= 65536) {
      EXPECT_EQ(read(file).alignment(), alignment);
    } else {
      expect_refused(file, "general.alignment");
    }
  }
  for (const uint32_t alignment : {0u, 13u, 24u, 65537u, UINT32_MAX}) {
    expect_refused(with_keys(1, FileBytes().text("general.alignment").u32(kU32).u32(alignment)),
                   "general.alignment");
  }
}

TEST(GgufReader, RefusesAnAlignmentThatIsNotU32) {
  expect_refused(with_keys(1, FileBytes().text("general.alignment").u32(kI32).u32(32)), "general.alignment");
  expect_refused(with_keys(1, FileBytes().text("general.alignment").u32(kU64).u64(32)), "general.alignment");
  expect_refused(with_keys(1, FileBytes().text("general.alignment").u32(kString).text("32")),
                 "general.alignment");
}

TEST(GgufReader, PlacesDataByTheFilesOwnAlignment) {
  FileBytes file;
  file.header(2, 1).text("general.alignment").u32(kU32).u32(256);
  file.tensor("a", {1}, kTypeF32, 0).tensor("b", {1}, kTypeF32, 256).pad(256);
  const size_t data = file.size();
  file.zeros(256 + 4);
  const GgufReader gguf = read(file);
  EXPECT_EQ(gguf.data_offset(), data);
  EXPECT_EQ(gguf.tensors()[1].data, file.bytes().data() + data + 256);
}

// --- R4, R8: tensors

FileBytes with_name(std::string_view name) {
  return with_tensors(1, FileBytes().tensor(name, {1}, kTypeF32, 0), 32);
}

TEST(GgufReader, RefusesWrongTensorNames) {
  for (const std::string& name : {""s, std::string(65, 'n'), "a\0x"s, "a\nb"s, "a\xFF"s, "\xC0\x80"s}) {
    expect_refused(with_name(name), "tensor name");
  }
  for (const std::string& name : {std::string(64, 'n'), "größe"s, " "s}) {
    EXPECT_EQ(read(with_name(name)).tensors()[0].name, name);
  }
  expect_refused(FileBytes().header(1, 0).u64(UINT64_MAX).zeros(64), "tensor name length");
}

TEST(GgufReader, RefusesDuplicateTensors) {
  const FileBytes infos = FileBytes().tensor("a", {1}, kTypeF32, 0).tensor("a", {1}, kTypeF32, 32);
  expect_refused(with_tensors(2, infos, 64), "duplicate tensor 'a'");
}

FileBytes with_shape(const std::vector<uint64_t>& ne, uint32_t type) {
  return with_tensors(1, FileBytes().tensor("x", ne, type, 0), 64);
}

TEST(GgufReader, RefusesWrongNumbersOfDimensions) {
  for (const uint32_t n_dims : {0u, 5u, 6u, 0x80000000u, UINT32_MAX}) {
    expect_refused(FileBytes().header(1, 0).text("x").u32(n_dims).zeros(100), "dimensions, expected 1 to 4");
  }
}

TEST(GgufReader, RefusesDimensionsOfZeroAndBeyondTheLimit) {
  for (size_t place = 0; place < 4; ++place) {
    std::vector<uint64_t> ne(4, 1);
    ne[place] = 0;
    expect_refused(with_shape(ne, kTypeF32), fmt::format("dimension {} of tensor 'x' is 0", place));
    for (const uint64_t large : {(uint64_t{1} << 40) + 1, uint64_t{1} << 63, UINT64_MAX}) {
      ne[place] = large;
      expect_refused(with_shape(ne, kTypeF32), "size overflow: dimension");
    }
  }
}

TEST(GgufReader, RefusesSizesThatWrap) {
  const uint64_t p20 = uint64_t{1} << 20, p32 = uint64_t{1} << 32, p40 = uint64_t{1} << 40;
  expect_refused(with_shape({p32, p32}, kTypeF32), "size overflow");            // elements wrap to 0
  expect_refused(with_shape({p40, p40, p40, p40}, kTypeF32), "size overflow");  // and again
  expect_refused(with_shape({p40, p40 / p20 * 4}, kTypeF32),
                 "size overflow");  // elements fit, bytes wrap to 0
  expect_refused(with_shape({p40, (uint64_t{1} << 24) - 1}, kTypeQ8_0), "size overflow");
  // Fits in 64 bits, because the division comes first; then it is only too large for the file.
  expect_refused(with_shape({p40, p20, 8}, kTypeQ8_0), "past end of file");
}

TEST(GgufReader, RefusesASumOfSizesThatWraps) {
  const uint64_t p30 = uint64_t{1} << 30, p32 = uint64_t{1} << 32;
  // Each 2^63 + small; type I8 is 24.
  FileBytes infos;
  infos.tensor("a", {p32, p30, 2}, 24, 0).tensor("b", {p32, p30, 2}, 24, uint64_t{1} << 63);
  expect_refused(with_tensors(2, infos, 64), "size overflow: tensor 'b'");
}

TEST(GgufReader, AcceptsExactlyTheTypesOfTheTable) {
  for (uint32_t type = 0; type < 300; ++type) {
    const BlockFormat* format = find_block_format(static_cast<DType>(type));
    const uint64_t columns = format == nullptr ? 256 : format->block_weights;
    const FileBytes file = with_tensors(1, FileBytes().tensor("x", {columns}, type, 0), 8192);
    if (format != nullptr) {
      EXPECT_EQ(read(file).tensors()[0].n_bytes, format->block_bytes) << format->name;
    } else {
      expect_refused(file, fmt::format("tensor type {} ", type));
    }
  }
  for (const uint32_t type : {0x7FFFFFFFu, 0x80000000u, UINT32_MAX}) {
    expect_refused(with_tensors(1, FileBytes().tensor("x", {256}, type, 0), 64), "tensor type");
  }
}

// --- panels (panel_layout.h)

FileBytes with_panels(const std::vector<uint64_t>& ne, uint32_t type) {
  return with_tensors(1, FileBytes().tensor("x", ne, type, 0), 1 << 16);
}

TEST(GgufReader, ReadsPanelsAsTensorsOfTheirFormat) {
  for (const BlockFormat& format : block_formats()) {
    const std::vector<uint64_t> ne = {format.block_weights, 19};
    if (!has_panel_layout(format.dtype)) {
      expect_refused(with_panels(ne, panel_type_id(format.dtype)), "tensor type 1343619");
      continue;
    }
    const FileBytes file = with_panels(ne, panel_type_id(format.dtype));
    const GgufReader gguf = read(file);
    const TensorView& tensor = gguf.tensors()[0];
    EXPECT_EQ(tensor.dtype, format.dtype);
    EXPECT_EQ(tensor.layout, TensorLayout::kPanels);
    EXPECT_EQ(tensor.n_bytes, 19 * format.block_bytes);
  }
  const FileBytes standard = with_panels({32, 19}, kTypeQ4_0);
  EXPECT_EQ(read(standard).tensors()[0].layout, TensorLayout::kRows);
}

TEST(GgufReader, RefusesPanelsOfAnotherVersion) {
  for (const uint32_t version : {0u, 2u, 255u})
    expect_refused(with_panels({32, 16}, kPanelTypeBase + 256 * version + kTypeQ4_0),
                   fmt::format("tensor 'x' has panels of version {}, this program reads version 1", version));
}

TEST(GgufReader, RefusesPanelsOfFormatsThatHaveNone) {
  for (const uint32_t type : {4u, 5u, 9u, 200u, 255u})  // no formats at all
    expect_refused(with_panels({256, 16}, kPanelTypeBase + 256 * kPanelVersion + type), "unknown or not");
}

TEST(GgufReader, RefusesPanelsOfShapesThatHaveNone) {
  const uint32_t q4_0 = panel_type_id(DType::Q4_0);
  for (const std::vector<uint64_t>& ne :
       {std::vector<uint64_t>{512}, {32, 15}, {32, 1}, {32, 16, 1}, {32, 4, 4}})
    expect_refused(with_panels(ne, q4_0), "cannot be panels");
  expect_refused(with_panels({33, 16}, q4_0), "not a multiple of Q4_0's block size 32");
}

TEST(GgufReader, RefusesRowsThatAreNotWholeBlocks) {
  for (const BlockFormat& format : block_formats()) {
    if (format.block_weights == 1) continue;
    for (const uint64_t columns :
         {uint64_t{1}, format.block_weights / uint64_t{2}, format.block_weights + uint64_t{1}}) {
      // The number of elements is a multiple all the same.
      const FileBytes infos =
          FileBytes().tensor("x", {columns, format.block_weights}, uint32_t(format.dtype), 0);
      expect_refused(with_tensors(1, infos, 65536), fmt::format("{}'s block size", format.name));
    }
  }
}

// --- R9: offsets

FileBytes with_second_offset(uint64_t offset) {
  return with_tensors(2, FileBytes().tensor("a", {10}, kTypeF32, 0).tensor("b", {10}, kTypeF32, offset), 512);
}

TEST(GgufReader, RefusesOffsetsThatDoNotFollowOneAnother) {
  EXPECT_NO_THROW(read(with_second_offset(64)));
  expect_refused(with_second_offset(65), "offset 65 of tensor 'b' is not a multiple of the alignment 32");
  for (const uint64_t offset :
       {uint64_t{0}, uint64_t{32}, uint64_t{96}, uint64_t{1} << 20, uint64_t{1} << 63}) {
    expect_refused(with_second_offset(offset), fmt::format("offset {} of tensor 'b', expected 64", offset));
  }
  expect_refused(with_tensors(1, FileBytes().tensor("a", {10}, kTypeF32, 32), 512), "expected 0");
}

TEST(GgufReader, RefusesDataPastTheEndOfTheFile) {
  const FileBytes infos = FileBytes().tensor("a", {10}, kTypeF32, 0);
  EXPECT_NO_THROW(read(with_tensors(1, infos, 40)));
  expect_refused(with_tensors(1, infos, 39), "data of tensor 'a' reaches past end of file");
  expect_refused(with_tensors(1, infos, 0), "past end of file");
}

TEST(GgufReader, WarnsOfTrailingBytes) {
  const FileBytes infos = FileBytes().tensor("a", {10}, kTypeF32, 0);
  for (const auto& [size, n_trailing] :
       {std::pair<size_t, int>{40, 0}, {50, 0}, {64, 0}, {65, 1}, {164, 100}}) {
    std::vector<std::string> notices;
    const FileBytes file = with_tensors(1, infos, size);
    read(file, [&](std::string_view line) { notices.emplace_back(line); });
    ASSERT_EQ(notices.size(), n_trailing > 0 ? 1u : 0u) << size;
    if (n_trailing > 0) {
      EXPECT_TRUE(notices[0].starts_with(fmt::format("test.gguf: {} trailing bytes", n_trailing)))
          << notices[0];
    }
  }
}

TEST(GgufReader, ReadsManyKeysAndTensorsInLinearTime) {
  constexpr uint64_t kKeys = 200'000, kTensors = 50'000;
  FileBytes file;
  file.header(kTensors, kKeys);
  for (uint64_t i = 0; i < kKeys; ++i) file.text(fmt::format("k{}", i)).u32(kU8).u8(1);
  for (uint64_t i = 0; i < kTensors; ++i) file.tensor(fmt::format("t{}", i), {1}, kTypeF32, i * 32);
  file.pad(32).zeros(kTensors * 32);
  const auto start = std::chrono::steady_clock::now();
  const GgufReader gguf = read(file);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(gguf.find("k199999")->as_uint(), 1u);
  EXPECT_EQ(gguf.find_tensor("t49999"), &gguf.tensors().back());
  // Comparing each with each takes ten times as long; the margin is for sanitizers and busy machines.
  EXPECT_LT(seconds.count(), 5.0);
}

// --- R6: typed access

// One key "k" of every number type with this value, where it fits.
std::vector<FileBytes> files_with_integer(int64_t value) {
  std::vector<FileBytes> files;
  const auto add = [&]<class T>(uint32_t type, T) {
    if (value < 0 && std::is_unsigned_v<T>) return;
    if (static_cast<int64_t>(static_cast<T>(value)) != value) return;
    files.push_back(with_keys(1, FileBytes().text("k").u32(type).number(static_cast<T>(value))));
  };
  add(0, uint8_t{}), add(1, int8_t{}), add(2, uint16_t{}), add(3, int16_t{}), add(4, uint32_t{});
  add(5, int32_t{}), add(10, uint64_t{}), add(11, int64_t{});
  return files;
}

TEST(GgufReader, TakesIntegersOfEveryTypeWhereTheValueIsInRange) {
  for (const auto& [value, n_types] : {std::pair<int64_t, size_t>{0, 8}, {100, 8}, {200, 7}, {40'000, 5}}) {
    const std::vector<FileBytes> files = files_with_integer(value);
    EXPECT_EQ(files.size(), n_types);
    for (const FileBytes& file : files) {
      const GgufReader gguf = read(file);
      EXPECT_EQ(gguf.require_uint("k", 0, 1 << 20), static_cast<uint64_t>(value));
      EXPECT_EQ(gguf.find("k")->as_int(), value);
      EXPECT_FALSE(gguf.find("k")->as_float());
      expect_error(ErrorCode::kMalformed, "test.gguf: k: expected an integer from 50000 to 60000, found ",
                   [&] { gguf.require_uint("k", 50'000, 60'000); });
    }
  }
  for (const FileBytes& file : files_with_integer(-5)) {
    const GgufReader gguf = read(file);
    EXPECT_EQ(gguf.find("k")->as_int(), -5);
    expect_error(ErrorCode::kMalformed, "-5", [&] { gguf.uint_or("k", 1, 0, UINT64_MAX); });
  }
  const FileBytes file = with_keys(1, FileBytes().text("k").u32(kU64).u64(UINT64_MAX));
  const GgufReader gguf = read(file);
  EXPECT_EQ(gguf.find("k")->as_uint(), UINT64_MAX);
  EXPECT_FALSE(gguf.find("k")->as_int());
}

TEST(GgufReader, NamesTheKeyWhenItIsMissingOrOfAnotherType) {
  const FileBytes file = with_keys(1, FileBytes().text("k").u32(kArray).u32(kU32).u64(2).u32(1).u32(2));
  const GgufReader gguf = read(file);
  const auto refused = [](std::string_view part, const std::function<void()>& action) {
    expect_error(ErrorCode::kMalformed, part, action);
  };
  refused("key 'absent' is missing", [&] { gguf.require_uint("absent", 0, 1); });
  refused("key 'absent' is missing", [&] { gguf.require_float("absent"); });
  refused("key 'absent' is missing", [&] { gguf.require_string("absent"); });
  refused("k: expected an integer from 0 to 9, found array of 2 u32", [&] { gguf.uint_or("k", 1, 0, 9); });
  refused("k: expected a finite f32 or f64 above 0, found array", [&] { gguf.float_or("k", 1); });
  refused("k: expected a bool, found array", [&] { gguf.bool_or("k", true); });
  refused("k: expected a string, found array", [&] { gguf.string_or("k", ""); });
  EXPECT_EQ(gguf.uint_or("absent", 7, 0, 1), 7u);
  EXPECT_EQ(gguf.float_or("absent", -1.5), -1.5);
  EXPECT_TRUE(gguf.bool_or("absent", true));
  EXPECT_EQ(gguf.string_or("absent", "x"), "x");
}

TEST(GgufReader, TakesFiniteFloatsAboveZeroOnly) {
  const auto f32 = [](float value) { return with_keys(1, FileBytes().text("k").u32(kF32).number(value)); };
  const auto f64 = [](double value) { return with_keys(1, FileBytes().text("k").u32(12).number(value)); };
  EXPECT_EQ(read(f32(1e-5f)).require_float("k"), static_cast<double>(1e-5f));
  EXPECT_EQ(read(f64(1e6)).require_float("k"), 1e6);
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(),
                  kInf = std::numeric_limits<float>::infinity();
  for (const float value : {0.0f, -1.0f, kNan, kInf, -kInf}) {
    expect_error(ErrorCode::kMalformed, "k: expected a finite", [&] { read(f32(value)).require_float("k"); });
    expect_error(ErrorCode::kMalformed, "k: expected a finite", [&] { read(f64(value)).float_or("k", 1); });
  }
  expect_error(ErrorCode::kMalformed, "found u32 1",
               [] { read(with_keys(1, FileBytes().text("k").u32(kU32).u32(1))).require_float("k"); });
}

TEST(GgufReader, RefusesWithItsPath) {
  const FileBytes file = base_file();
  const GgufReader gguf = read(file);
  expect_error(ErrorCode::kMalformed, "test.gguf: because", [&] { gguf.refuse("because"); });
}

}  // namespace
}  // namespace quern
