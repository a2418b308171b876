// Rotary position embedding: the angles of positions (arithmetic.md "RoPE").
//
// Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021; Peng et al., "YaRN:
// Efficient Context Window Extension of Large Language Models", 2023, section 3; Ding et al., "LongRoPE",
// 2024.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/device.h"

namespace quern {

class Declarations;
class HParamReader;

struct Rope {
  RopePairs pairs = RopePairs::kNeighbours;
  std::vector<double> frequencies;  // [rotary_dim / 2], radians a position
  double magnitude = 1;             // of cosines and sines

  size_t rotary_dim() const { return 2 * frequencies.size(); }
  // Cosines and sines of every row's position as the device wants them: [rows, rotary_dim].
  void fill(std::span<const SequenceRows> sequences, std::span<float> table) const;
};

// What a file says about a rotation.
struct RopeSettings {
  RopePairs pairs = RopePairs::kNeighbours;
  uint32_t rotary_dim = 0;
  double base = 10000;
  enum class Scaling : uint8_t { kNone, kLinear, kYarn, kLong } scaling = Scaling::kNone;
  double factor = 1;
  double original_context = 0;  // kYarn, kLong
  double beta_fast = 32, beta_slow = 1, magnitude = 1;
  bool whole_correction = true;  // kYarn: the ramp begins and ends at whole numbers
  // Divide the frequencies: [rotary_dim / 2]; empty: none. Long ones beyond the original context.
  std::vector<float> factors, long_factors, short_factors;

  // rope.freq_base, rope.dimension_count (which must be the whole head unless `partial`), rope.scaling.*.
  void read(HParamReader& keys, uint32_t head_dim, bool partial);
  // rope_freqs, rope_factors_long, rope_factors_short, where the file has them.
  void declare(Declarations& parts);
  // For a session of so many positions.
  Rope make(uint64_t context) const;
  // The longest context that needs no long factors; the largest number: no matter.
  uint64_t usual_context() const;
};

// f_i = 1 / rho^i with rho^(rotary_dim / 2) = base.
std::vector<double> rope_frequencies(uint32_t rotary_dim, double base);
// rope.freq_base, or another key; at least 1.
double read_rope_base(HParamReader& keys, std::string_view key = "rope.freq_base", double fallback = 10000.0);

}  // namespace quern
