#include "quant/block_format.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "quant/float16.h"
#include "tests/quant/golden_blocks.h"

namespace quern {
namespace {

std::vector<uint32_t> bits_of(const std::vector<float>& values) {
  std::vector<uint32_t> bits(values.size());
  std::memcpy(bits.data(), values.data(), values.size() * sizeof(float));
  return bits;
}

std::vector<uint8_t> random_bytes(size_t n, std::mt19937* random) {
  std::vector<uint8_t> bytes(n);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>((*random)());
  return bytes;
}

// n_blocks of random bytes whose scales are finite.
std::vector<uint8_t> random_blocks(const BlockFormat& format, size_t n_blocks, std::mt19937* random) {
  std::vector<uint8_t> blocks;
  while (blocks.size() < n_blocks * format.block_bytes) {
    const std::vector<uint8_t> block = random_bytes(format.block_bytes, random);
    if (format.first_non_finite(block.data(), 1) == 1)
      blocks.insert(blocks.end(), block.begin(), block.end());
  }
  return blocks;
}

// Weight e of a block as formats.md 2.6 states it, one at a time.
float f16_at(const uint8_t* b, int offset) {
  return f32_from_f16(static_cast<uint16_t>(b[offset] | b[offset + 1] << 8));
}
int nibble(const uint8_t* qs, int e) { return e < 16 ? qs[e] & 15 : qs[e - 16] >> 4; }
int fifth_bit(const uint8_t* qh, int e) { return (qh[e / 8] >> (e % 8) & 1) << 4; }
int two_bits(const uint8_t* qs, int e) { return qs[32 * (e / 128) + e % 32] >> 2 * ((e % 128) / 32) & 3; }
int k_nibble(const uint8_t* qs, int e) {
  const int byte = qs[32 * (e / 64) + e % 32];
  return e % 64 < 32 ? byte & 15 : byte >> 4;
}
int k_scale(const uint8_t* s, int j) { return j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4; }
int k_min(const uint8_t* s, int j) { return j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) | (s[j] >> 6) << 4; }
constexpr int kIq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

float q4_0(const uint8_t* b, int e) { return static_cast<float>(nibble(b + 2, e) - 8) * f16_at(b, 0); }
float q4_1(const uint8_t* b, int e) {
  return static_cast<float>(nibble(b + 4, e)) * f16_at(b, 0) + f16_at(b, 2);
}
float q5_0(const uint8_t* b, int e) {
  return static_cast<float>((nibble(b + 6, e) | fifth_bit(b + 2, e)) - 16) * f16_at(b, 0);
}
float q5_1(const uint8_t* b, int e) {
  return static_cast<float>(nibble(b + 8, e) | fifth_bit(b + 4, e)) * f16_at(b, 0) + f16_at(b, 2);
}
float q8_0(const uint8_t* b, int e) {
  return static_cast<float>(static_cast<int8_t>(b[2 + e])) * f16_at(b, 0);
}
float q2_k(const uint8_t* b, int e) {
  const int s = b[e / 16];
  return f16_at(b, 80) * static_cast<float>(s & 15) * static_cast<float>(two_bits(b + 16, e)) -
         f16_at(b, 82) * static_cast<float>(s >> 4);
}
float q3_k(const uint8_t* b, int e) {
  const int q = two_bits(b + 32, e) - ((b[e % 32] >> (e / 32) & 1) != 0 ? 0 : 4);
  const uint8_t* s = b + 96;
  const int j = e / 16;
  const int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
  const int scale = (low | (s[8 + j % 4] >> 2 * (j / 4) & 3) << 4) - 32;
  return f16_at(b, 108) * static_cast<float>(scale) * static_cast<float>(q);
}
float q4_k(const uint8_t* b, int e) {
  const int j = e / 32;
  return f16_at(b, 0) * static_cast<float>(k_scale(b + 4, j)) * static_cast<float>(k_nibble(b + 16, e)) -
         f16_at(b, 2) * static_cast<float>(k_min(b + 4, j));
}
float q5_k(const uint8_t* b, int e) {
  const int j = e / 32;
  const int q = k_nibble(b + 48, e) + 16 * (b[16 + e % 32] >> j & 1);
  return f16_at(b, 0) * static_cast<float>(k_scale(b + 4, j)) * static_cast<float>(q) -
         f16_at(b, 2) * static_cast<float>(k_min(b + 4, j));
}
float q6_k(const uint8_t* b, int e) {
  const int n = e / 128, r = e % 128, k = r / 32, l = r % 32;
  const int byte = b[64 * n + l + ((k & 1) != 0 ? 32 : 0)];
  const int q = (k < 2 ? byte & 15 : byte >> 4) | (b[128 + 32 * n + l] >> 2 * k & 3) << 4;
  const auto scale = static_cast<int8_t>(b[192 + 8 * n + r / 16]);
  return f16_at(b, 208) * static_cast<float>(scale) * static_cast<float>(q - 32);
}
float iq4_nl(const uint8_t* b, int e) { return f16_at(b, 0) * static_cast<float>(kIq4[nibble(b + 2, e)]); }
float iq4_xs(const uint8_t* b, int e) {
  const int ib = e / 32;
  const int high = (b[2] | b[3] << 8) >> 2 * ib & 3;
  const int scale = (b[4 + ib / 2] >> 4 * (ib % 2) & 15) | high << 4;
  const int byte = b[8 + 16 * ib + e % 16];
  return f16_at(b, 0) * static_cast<float>(scale - 32) *
         static_cast<float>(kIq4[e % 32 < 16 ? byte & 15 : byte >> 4]);
}
float mxfp4(const uint8_t* b, int e) {
  constexpr float kE2M1[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  const int code = nibble(b + 1, e);
  const float power = b[0] == 255 ? NAN : static_cast<float>(std::ldexp(1.0, b[0] - 127));
  return (code <= 8 ? 1.0f : -1.0f) * kE2M1[code % 8] * power;  // the reference has no -0
}
float nvfp4(const uint8_t* b, int e) {
  constexpr float kE2M1[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  const int sub = e / 16, d = b[sub] == 127 ? 0 : b[sub], mantissa = d % 8, exponent = d / 8 % 16;
  const double scale =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(1 + mantissa / 8.0, exponent - 7);
  const int code = b[4 + 8 * sub + e % 8] >> (e % 16 < 8 ? 0 : 4) & 15;
  return (code <= 8 ? 1.0f : -1.0f) * kE2M1[code % 8] * static_cast<float>(scale);
}
float f32(const uint8_t* b, int) {
  return std::bit_cast<float>(b[0] | b[1] << 8 | b[2] << 16 | static_cast<uint32_t>(b[3]) << 24);
}
float f16(const uint8_t* b, int) { return f16_at(b, 0); }
float bf16(const uint8_t* b, int) {
  return std::bit_cast<float>(b[0] << 16 | static_cast<uint32_t>(b[1]) << 24);
}

// Name, id, weights and bytes of a block, and the weights, copied from the format's description (not from our
// table). Null: formats that are listed only, or whose weights are known from the reference's decoding alone.
struct Described {
  const char* name;
  uint32_t id, weights, bytes;
  float (*element)(const uint8_t* block, int e);
  bool golden_only = false;  // read_codebook_blocks() has them
};
constexpr Described kDescribed[] = {
    {"F32", 0, 1, 4, f32},
    {"F16", 1, 1, 2, f16},
    {"Q4_0", 2, 32, 18, q4_0},
    {"Q4_1", 3, 32, 20, q4_1},
    {"Q5_0", 6, 32, 22, q5_0},
    {"Q5_1", 7, 32, 24, q5_1},
    {"Q8_0", 8, 32, 34, q8_0},
    {"Q2_K", 10, 256, 84, q2_k},
    {"Q3_K", 11, 256, 110, q3_k},
    {"Q4_K", 12, 256, 144, q4_k},
    {"Q5_K", 13, 256, 176, q5_k},
    {"Q6_K", 14, 256, 210, q6_k},
    {"IQ2_XXS", 16, 256, 66, nullptr, true},
    {"IQ2_XS", 17, 256, 74, nullptr, true},
    {"IQ3_XXS", 18, 256, 98, nullptr, true},
    {"IQ1_S", 19, 256, 50, nullptr, true},
    {"IQ4_NL", 20, 32, 18, iq4_nl},
    {"IQ3_S", 21, 256, 110, nullptr, true},
    {"IQ2_S", 22, 256, 82, nullptr, true},
    {"IQ4_XS", 23, 256, 136, iq4_xs},
    {"I8", 24, 1, 1, nullptr},
    {"I16", 25, 1, 2, nullptr},
    {"I32", 26, 1, 4, nullptr},
    {"I64", 27, 1, 8, nullptr},
    {"F64", 28, 1, 8, nullptr},
    {"IQ1_M", 29, 256, 56, nullptr, true},
    {"BF16", 30, 1, 2, bf16},
    {"TQ1_0", 34, 256, 54, nullptr, true},
    {"TQ2_0", 35, 256, 66, nullptr, true},
    {"MXFP4", 39, 32, 17, mxfp4},
    {"NVFP4", 40, 64, 36, nvfp4},
};

const Described& described(const BlockFormat& format) {
  for (const Described& row : kDescribed) {
    if (row.name == format.name) return row;
  }
  ADD_FAILURE() << format.name << " has no description: add it to kDescribed";
  return kDescribed[0];
}

TEST(BlockFormatTable, HasEveryFormatWithItsIdAndSize) {
  EXPECT_EQ(block_formats().size(), std::size(kDescribed));
  uint32_t previous = 0;
  for (const BlockFormat& format : block_formats()) {
    SCOPED_TRACE(format.name);
    const Described& expected = described(format);
    EXPECT_EQ(static_cast<uint32_t>(format.dtype), expected.id);
    EXPECT_EQ(format.block_weights, expected.weights);
    EXPECT_EQ(format.block_bytes, expected.bytes);
    EXPECT_EQ(format.row_bytes(512), 512 / expected.weights * expected.bytes);
    EXPECT_EQ(format.decode != nullptr, expected.element != nullptr || expected.golden_only);
    EXPECT_EQ(format.first_non_finite != nullptr, format.decode != nullptr);
    EXPECT_TRUE(format.decode != nullptr || (format.encode == nullptr && format.unpack_group == nullptr));
    EXPECT_TRUE(expected.id == 0 || expected.id > previous) << "not in order of the ids";
    previous = expected.id;
  }
}

TEST(BlockFormatTable, FindsRowsById) {
  for (const BlockFormat& format : block_formats()) {
    SCOPED_TRACE(format.name);
    EXPECT_EQ(find_block_format(format.dtype), &format);
    EXPECT_EQ(&block_format(format.dtype), &format);
  }
}

TEST(BlockFormatTable, DoesNotKnowOtherIds) {
  for (const uint32_t id : {4u, 5u, 9u, 15u, 31u, 33u, 36u, 38u, 41u, 1000u, 0xffffffffu}) {
    EXPECT_EQ(find_block_format(static_cast<DType>(id)), nullptr) << id;
  }
}

TEST(BlockFormatTable, FloatFormatsAreExactlyTheOnesWithoutGroupsThatDecode) {
  std::set<std::string_view> floats;
  for (const BlockFormat& format : block_formats()) {
    if (format.is_float()) floats.insert(format.name);
  }
  EXPECT_EQ(floats, (std::set<std::string_view>{"F32", "F16", "BF16"}));
}

TEST(BlockFormatGolden, CoversTwelveFormats) {
  std::set<std::string_view> names;
  for (const GoldenBlocks& golden : read_golden_blocks()) names.insert(golden.format->name);
  EXPECT_EQ(names.size(), 12u);
}

TEST(BlockFormatGolden, DecodesToTheReferencesBits) {
  size_t n = 0;
  for (const GoldenBlocks& golden : read_golden_blocks()) {
    SCOPED_TRACE(std::string(golden.format->name) + " " + golden.input_name);
    const size_t n_blocks = golden.input.size() / golden.format->block_weights;
    ASSERT_EQ(golden.bytes.size(), n_blocks * golden.format->block_bytes);
    std::vector<float> decoded(golden.input.size());
    golden.format->decode(golden.bytes.data(), n_blocks, decoded.data());
    EXPECT_EQ(bits_of(decoded), bits_of(golden.decoded));
    ++n;
  }
  EXPECT_EQ(n, 17u * 12);
}

TEST(BlockFormatGolden, DecodesRandomBlocksToTheReferencesBits) {
  std::set<std::string_view> names;
  for (const CodebookBlocks& golden : read_codebook_blocks()) {
    SCOPED_TRACE(golden.format->name);
    const size_t n_blocks = golden.decoded.size() / golden.format->block_weights;
    ASSERT_EQ(golden.bytes.size(), n_blocks * golden.format->block_bytes);
    std::vector<float> decoded(golden.decoded.size());
    golden.format->decode(golden.bytes.data(), n_blocks, decoded.data());
    EXPECT_EQ(decoded, golden.decoded);  // the reference has -0 where a code is zero and negative
    names.insert(golden.format->name);
  }
  for (const Described& row : kDescribed)
    EXPECT_TRUE(!row.golden_only || names.contains(row.name)) << row.name;
}

TEST(BlockFormatGolden, EncodesToTheReferencesBytes) {
  std::set<std::string_view> names;
  for (const GoldenBlocks& golden : read_golden_blocks()) {
    if (golden.format->encode == nullptr) continue;
    SCOPED_TRACE(std::string(golden.format->name) + " " + golden.input_name);
    std::vector<uint8_t> bytes(golden.bytes.size());
    golden.format->encode(golden.input.data(), golden.input.size() / golden.format->block_weights,
                          bytes.data());
    EXPECT_EQ(bytes, golden.bytes);
    names.insert(golden.format->name);
  }
  EXPECT_EQ(names, (std::set<std::string_view>{"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K",
                                               "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"}));
}

TEST(BlockFormat, DecodesRandomBytesAsDescribedWeightByWeight) {
  std::mt19937 random(1);
  constexpr size_t kBlocks = 500;
  for (const BlockFormat& format : block_formats()) {
    if (described(format).element == nullptr) continue;
    SCOPED_TRACE(format.name);
    const std::vector<uint8_t> blocks = random_blocks(format, kBlocks, &random);
    std::vector<float> decoded(kBlocks * format.block_weights), expected(decoded.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      expected[i] = described(format).element(blocks.data() + i / format.block_weights * format.block_bytes,
                                              static_cast<int>(i % format.block_weights));
    }
    format.decode(blocks.data(), kBlocks, decoded.data());
    EXPECT_EQ(bits_of(decoded), bits_of(expected));
  }
}

// The dot product reads groups, everything else reads decode(): both must mean the same weights. In double
// the expressions of WeightGroup are exact (f16 scales, short integers), so decode is their value, rounded
// once.
TEST(BlockFormat, GroupsAreTheDecodedWeights) {
  std::mt19937 random(2);
  constexpr size_t kBlocks = 200;
  for (const BlockFormat& format : block_formats()) {
    if (format.unpack_group == nullptr) continue;
    SCOPED_TRACE(format.name);
    const std::vector<uint8_t> row = random_blocks(format, kBlocks, &random);
    std::vector<float> decoded(kBlocks * format.block_weights);
    format.decode(row.data(), kBlocks, decoded.data());
    for (size_t i = 0; i < decoded.size(); ++i) {
      WeightGroup group;
      std::memset(&group, 0x5a, sizeof group);
      format.unpack_group(row.data(), i / 32, &group);
      const size_t k = i % 32, half = k / 16;
      const double d = half == 0 ? group.d : group.d_second;
      const double product = d * group.scale[half] * group.code[k];
      const double minimum = static_cast<double>(group.mu) * group.min[half];
      ASSERT_EQ(decoded[i], static_cast<float>(product + minimum)) << i;
      ASSERT_TRUE(group.has_min || minimum == 0) << i;
      ASSERT_TRUE(group.two_steps || group.d == group.d_second || std::isnan(group.d)) << i;
    }
  }
}

// |I| < 2^24 is what makes float(I) exact (arithmetic.md); 127 is the largest activation code.
TEST(BlockFormat, GroupSumsFitAFloatExactly) {
  std::mt19937 random(3);
  for (const BlockFormat& format : block_formats()) {
    if (format.unpack_group == nullptr) continue;
    SCOPED_TRACE(format.name);
    const std::vector<uint8_t> row = random_bytes(2000 * format.block_bytes, &random);
    int64_t largest = 0;
    for (size_t g = 0; g < 2000 * (format.block_weights / 32); ++g) {
      WeightGroup group;
      format.unpack_group(row.data(), g, &group);
      int64_t sum = 0;
      for (size_t k = 0; k < 32; ++k) sum += std::abs(group.scale[k / 16] * group.code[k]) * 127;
      largest = std::max(largest, sum);
    }
    EXPECT_LT(largest, 1 << 24);
  }
}

TEST(BlockFormat, FirstNonFiniteIsTheFirstBlockThatDoesNotDecodeToNumbers) {
  std::mt19937 random(4);
  constexpr size_t kBlocks = 7;
  for (const BlockFormat& format : block_formats()) {
    if (format.decode == nullptr) continue;
    SCOPED_TRACE(format.name);
    std::vector<float> decoded(kBlocks * format.block_weights);
    std::set<uint32_t> bad_offsets;
    const std::vector<uint8_t> good = random_blocks(format, kBlocks, &random);
    ASSERT_EQ(format.first_non_finite(good.data(), kBlocks), kBlocks);
    // Every place where a number could stand, made +Inf, -Inf and NaN, in two blocks.
    for (uint32_t offset = 0; offset + 1 < format.block_bytes; ++offset) {
      for (const uint16_t value : {0x7c00, 0xfc00, 0x7e01, 0x7f80, 0xff80, 0x7fc1, 0xffff}) {
        std::vector<uint8_t> blocks = good;
        for (const size_t b : {3u, 5u}) std::memcpy(&blocks[b * format.block_bytes + offset], &value, 2);
        format.decode(blocks.data(), kBlocks, decoded.data());
        size_t expected = 0;
        while (expected < decoded.size() && std::isfinite(decoded[expected])) ++expected;
        ASSERT_EQ(format.first_non_finite(blocks.data(), kBlocks), expected / format.block_weights)
            << "offset " << offset << " value " << value;
        if (expected < decoded.size()) bad_offsets.insert(offset);
      }
    }
    EXPECT_EQ(bad_offsets.empty(), format.dtype == DType::NVFP4);  // whose every byte is a number
  }
}

TEST(BlockFormat, AcceptsNoBlocksAtAll) {
  for (const BlockFormat& format : block_formats()) {
    if (format.decode == nullptr) continue;
    format.decode(nullptr, 0, nullptr);
    if (format.encode != nullptr) format.encode(nullptr, 0, nullptr);
    EXPECT_EQ(format.first_non_finite(nullptr, 0), 0u);
  }
}

}  // namespace
}  // namespace quern
