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
