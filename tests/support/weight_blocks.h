// Blocks of weights of every format that can be decoded, made without its encoder: any bytes for codes and
// small scales, and f16 numbers of a size that gives weights of the size asked for. Tests that walk the table
// of formats with these cover a format from the day it is decoded.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "quant/block_format.h"

namespace quern::test {

// Every format of the table that has a decoder.
std::vector<DType> decodable_formats();

// Offsets of the f16 numbers of a block: a NaN there, and only there, makes a block of zeros non-finite.
// Empty for floats.
std::vector<size_t> f16_offsets(const BlockFormat& format);

// The numbers that scale a block's weights, wherever a format has them: f16 somewhere, f16 in four nibbles
// (IQ1_M), an exponent (MXFP4, E8M0) or a number (NVFP4, UE4M3) of one byte. Floats have none.
class BlockScales {
 public:
  explicit BlockScales(const BlockFormat& format);
  size_t size() const { return f16_offsets_.empty() ? n_others_ : f16_offsets_.size(); }
  void set(uint8_t* block, size_t i, uint16_t bits) const;
  // Bits at the edges of what a scale may be: zero, subnormal, next to one, the largest, of both signs where
  // there are two.
  std::span<const uint16_t> finite() const;
  std::span<const uint16_t> non_finite() const;  // empty where all bits are numbers

 private:
  DType dtype_;
  std::vector<size_t> f16_offsets_;
  size_t n_others_ = 0;
};

// Makes the scales and minima of Q4_K's and Q5_K's sub-blocks alternate between 0 and 63; blocks of other
// formats stay.
void alternate_sub_scales(DType dtype, bool minima_too, uint8_t* block);

// Makes blocks of finite weights of either sign whose root mean square is about `rms` in each block (floats:
// normally distributed).
class RandomBlocks {
 public:
  RandomBlocks(const BlockFormat& format, float rms)
      : format_(format), rms_(rms), f16_offsets_(f16_offsets(format)) {}
  // blocks: a whole number of them. Throws std::runtime_error for a format of which it cannot make any.
  void fill(std::mt19937& random, std::span<uint8_t> blocks) const;

 private:
  bool try_block(std::mt19937& random, uint8_t* block) const;

  const BlockFormat& format_;
  float rms_;
  std::vector<size_t> f16_offsets_;
};

}  // namespace quern::test
