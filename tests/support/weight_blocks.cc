#include "tests/support/weight_blocks.h"

#include <array>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "quant/float16.h"

namespace quern::test {
namespace {

void put_f16(uint8_t* block, size_t offset, float value) {
  const uint16_t bits = f16_from_f32(value);
  std::memcpy(block + offset, &bits, sizeof bits);
}

// Infinite or NaN where a weight is.
double rms_of(const BlockFormat& format, const uint8_t* block) {
  constexpr size_t kMostWeights = 256;
  float weights[kMostWeights];
  if (format.block_weights > kMostWeights) throw std::runtime_error("a block of more weights than foreseen");
  format.decode(block, 1, weights);
  double sum = 0;
  for (size_t i = 0; i < format.block_weights; ++i) sum += double{weights[i]} * weights[i];
  return std::sqrt(sum / format.block_weights);
}

void fill_with_floats(const BlockFormat& format, float rms, std::mt19937& random, std::span<uint8_t> blocks) {
  std::normal_distribution<float> normal(0, rms);
  for (size_t at = 0; at < blocks.size(); at += format.block_bytes) {
    const float x = normal(random);
    format.encode(&x, 1, &blocks[at]);
  }
}

}  // namespace

std::vector<DType> decodable_formats() {
  std::vector<DType> dtypes;
  for (const BlockFormat& format : block_formats())
    if (format.decode != nullptr) dtypes.push_back(format.dtype);
  return dtypes;
}

std::vector<size_t> f16_offsets(const BlockFormat& format) {
  std::vector<size_t> offsets;
  if (format.is_float()) return offsets;
  for (size_t i = 0; i + 2 <= format.block_bytes; ++i) {
    std::vector<uint8_t> block(format.block_bytes, 0);
    block[i + 1] = 0x7e;
    if (format.first_non_finite(block.data(), 1) == 0) offsets.push_back(i);
  }
  return offsets;
}

BlockScales::BlockScales(const BlockFormat& format)
    : dtype_(format.dtype), f16_offsets_(f16_offsets(format)) {
  if (dtype_ == DType::IQ1_M || dtype_ == DType::MXFP4) n_others_ = 1;
  if (dtype_ == DType::NVFP4) n_others_ = 4;
}

void BlockScales::set(uint8_t* block, size_t i, uint16_t bits) const {
  if (!f16_offsets_.empty()) {
    std::memcpy(block + f16_offsets_.at(i), &bits, sizeof bits);
  } else if (dtype_ == DType::IQ1_M) {
    constexpr size_t kScales = 48;  // their highest nibbles, the low one first
    for (size_t nibble = 0; nibble < 4; ++nibble) {
      uint8_t& high = block[kScales + 2 * nibble + 1];
      high = static_cast<uint8_t>((high & 15) | (bits >> 4 * nibble & 15) << 4);
    }
  } else {
    block[i] = static_cast<uint8_t>(bits);
  }
}

std::span<const uint16_t> BlockScales::finite() const {
  static constexpr uint16_t kF16[] = {0x0000, 0x8000, 0x0001, 0x83ff, 0x7bff,
                                      0xfbff, 0x3c00, 0xbc00, 0x2e66, 0xae66};
  static constexpr uint16_t kE8M0[] = {0, 1, 2, 100, 127, 128, 253, 254};
  // 1 and 7 are subnormal, 127 is 0, bit 7 means nothing.
  static constexpr uint16_t kUe4m3[] = {0, 1, 7, 8, 0x38, 0x7e, 0x7f, 0x80, 0x81, 0xb8, 0xfe, 0xff};
  if (dtype_ == DType::MXFP4) return kE8M0;
  if (dtype_ == DType::NVFP4) return kUe4m3;
  return kF16;
}

std::span<const uint16_t> BlockScales::non_finite() const {
  static constexpr uint16_t kF16[] = {0x7c00, 0xfc00, 0x7e00};
  static constexpr uint16_t kE8M0[] = {255};
  if (dtype_ == DType::MXFP4) return kE8M0;
  if (dtype_ == DType::NVFP4) return {};
  return kF16;
}

// Layout: formats.md 2.6. Neighbours differ, so bytes of four sub-blocks are all ones or zeros.
void alternate_sub_scales(DType dtype, bool minima_too, uint8_t* block) {
  if (dtype != DType::Q4_K && dtype != DType::Q5_K) return;
  uint8_t* const s = block + 4;
  for (size_t j = 0; j < 4; ++j) {
    const uint8_t scale = j % 2 != 0 ? 0xff : 0x00,
                  minimum = minima_too ? static_cast<uint8_t>(~scale) : scale;
    s[j] = scale;
    s[j + 4] = minimum;
    s[j + 8] = static_cast<uint8_t>((scale & 0x0f) | (minimum & 0xf0));
  }
}

// The f16 numbers of a block scale its weights: one try with any size says by how much they are off. Where a
// block has none, its scale is in another form, and a block whose weights happen to be of about the right
// size is waited for.
bool RandomBlocks::try_block(std::mt19937& random, uint8_t* block) const {
  for (size_t i = 0; i < format_.block_bytes; ++i) block[i] = static_cast<uint8_t>(random());
  std::uniform_real_distribution<float> about_one(0.5f, 1.5f);
  std::array<float, 8> values{};
  for (size_t i = 0; i < f16_offsets_.size(); ++i) {
    values.at(i) = about_one(random) * (random() % 2 != 0 ? 1.0f : -1.0f);
    put_f16(block, f16_offsets_[i], values[i]);
  }
  double found = rms_of(format_, block);
  if (!f16_offsets_.empty() && std::isfinite(found) && found > 0) {
    const float factor = static_cast<float>(rms_ / found);
    for (size_t i = 0; i < f16_offsets_.size(); ++i) put_f16(block, f16_offsets_[i], values[i] * factor);
    found = rms_of(format_, block);
  }
  return found > rms_ / 4 && found < rms_ * 4;
}

void RandomBlocks::fill(std::mt19937& random, std::span<uint8_t> blocks) const {
  if (format_.is_float()) return fill_with_floats(format_, rms_, random, blocks);
  constexpr int kTries = 10000;
  for (size_t at = 0; at < blocks.size(); at += format_.block_bytes) {
    int tries = 0;
    while (!try_block(random, &blocks[at]))
      if (++tries == kTries)
        throw std::runtime_error("no block of " + std::string(format_.name) +
                                 " has weights of the size asked for");
  }
}

}  // namespace quern::test
