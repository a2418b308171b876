// Q6_K: 256 weights in 210 bytes, 16 sub-blocks of 16. weight = d * scale * (code - 32), code 0..63.
//
//   byte 0                            128                          192               208    210
//        | ql[128]: low four bits     | qh[64]: high two bits      | int8 scale[16]  | d    |
//          of a code                    of a code                                      f16
//
// The two halves n of 128 weights are alike; weight 32k + l of half n (k 0..3, l 0..31):
//   ql byte 64n + 32*(k%2) + l, its low nibble for k < 2, else the high one
//   qh byte 32n + l, its bits 2k and 2k + 1
#include <algorithm>
#include <array>

#include "quant/formats/formats.h"

namespace quern::formats::q6_k {
namespace {

constexpr size_t kQl = 0, kQh = 128, kScales = 192, kD = 208;  // byte offsets
constexpr size_t kGroups = kWeights / kGroup;
constexpr size_t kSub = 16;  // weights in a sub-block
constexpr size_t kSubs = kWeights / kSub;
constexpr float kTiny = 1e-15f;  // magnitudes below it count as zero

// Inverse scales tried for a sub-block are kSteps[c] / (its largest weight): that weight then takes the code
// -32, or lies up to 0.9 steps nearer or farther. One more fills the SIMD lanes and is not looked at.
constexpr size_t kCandidates = 19, kLanes = 20;
constexpr std::array<float, kLanes> make_steps() {
  std::array<float, kLanes> steps{-32.0f};
  size_t c = 1;
  for (int k = -9; k <= 9; ++k) {
    if (k != 0) steps[c++] = -(32.0f + 0.1f * static_cast<float>(k));
  }
  return steps;
}
constexpr std::array<float, kLanes> kSteps = make_steps();

// Codes of weights that were scaled, -32..31.
Float4 code_of(Float4 scaled) {
  return min4(max4(round_to_even(scaled), Float4{} - 32.0f), Float4{} + 31.0f);
}

struct SubScale {
  float scale = 0;    // least-squares scale of the codes found, weighted by x^2
  float inverse = 0;  // gives those codes: code_of(inverse * x)
  bool zero = true;   // nothing above kTiny: scale 0, code bytes 0
};

SubScale find_scale(const float* x) {
  const float largest = first_of_largest_magnitude<kSub>(x);
  if (std::fabs(largest) < kTiny) return {};
  // Lanes are candidates, so that the sums of each run over the weights in order. All candidates side by
  // side: their chains of additions overlap.
  constexpr size_t kVectors = kLanes / 4;
  Float4 is[kVectors], lx[kVectors] = {}, l2[kVectors] = {};
  for (size_t v = 0; v < kVectors; ++v) is[v] = load4(&kSteps[4 * v]) / largest;
  for (size_t k = 0; k < kSub; ++k) {
    const float w = x[k] * x[k], wx = w * x[k];
#pragma GCC unroll 5
    for (size_t v = 0; v < kVectors; ++v) {
      const Float4 l = code_of(is[v] * x[k]);
      lx[v] += wx * l;
      l2[v] += (w * l) * l;
    }
  }
  float inverse[kLanes], sum_lx[kLanes], sum_l2[kLanes];
  std::memcpy(inverse, is, sizeof is);
  std::memcpy(sum_lx, lx, sizeof lx);
  std::memcpy(sum_l2, l2, sizeof l2);
  SubScale found;
  found.zero = false;
  found.inverse = inverse[0];
  found.scale = sum_l2[0] != 0 ? sum_lx[0] / sum_l2[0] : 0.0f;
  float best = found.scale * sum_lx[0];
  for (size_t c = 1; c < kCandidates; ++c) {
    if (sum_l2[c] > 0 && sum_lx[c] * sum_lx[c] > best * sum_l2[c]) {
      found.inverse = inverse[c];
      found.scale = sum_lx[c] / sum_l2[c];
      best = found.scale * sum_lx[c];
    }
  }
  return found;
}

void store_codes(const uint8_t* code /* [256] */, uint8_t* block) {
  for (size_t n = 0; n < 2; ++n) {
    uint8_t* ql = block + kQl + 64 * n;
    uint8_t* qh = block + kQh + 32 * n;
    const uint8_t* q = code + 128 * n;
    for (size_t l = 0; l < 64; ++l) ql[l] = static_cast<uint8_t>((q[l] & 15) | (q[l + 64] & 15) << 4);
    for (size_t l = 0; l < 32; ++l) {
      qh[l] = static_cast<uint8_t>(q[l] >> 4 | (q[l + 32] >> 4) << 2 | (q[l + 64] >> 4) << 4 |
                                   (q[l + 96] >> 4) << 6);
    }
  }
}

void encode_block(const float* x, uint8_t* block) {
  std::memset(block, 0, kBytes);
  SubScale sub[kSubs];
  float largest = 0;
  bool finite = true;
  for (size_t j = 0; j < kSubs; ++j) {
    sub[j] = find_scale(x + kSub * j);
    finite = finite && std::isfinite(sub[j].scale);
    if (std::fabs(sub[j].scale) > std::fabs(largest)) largest = sub[j].scale;
  }
  if (!finite) {
    // Squares of weights beyond 1e12 overflow. The reference would go on, and may write zeros; a scale that
    // is not a number makes the caller report the block.
    store_f16(NAN, block + kD);
    return;
  }
  if (std::fabs(largest) < kTiny) return;

  const float inverse = -128.0f / largest;
  store_f16(1.0f / inverse, block + kD);
  const float d = load_f16(block + kD);
  if (!std::isfinite(d)) return;

  float code[kWeights];
  for (size_t j = 0; j < kSubs; ++j) {
    const float scale = std::min(127.0f, round_to_even(inverse * sub[j].scale));
    block[kScales + j] = static_cast<uint8_t>(static_cast<int8_t>(scale));
    const float step = d * scale;
    for (size_t k = kSub * j; k < kSub * (j + 1); k += 4) {
      // Where the step was too small to store, the codes of the search stay; code byte 0 for no scale at all.
      const Float4 codes = step != 0     ? code_of(load4(x + k) / step)
                           : sub[j].zero ? Float4{} - 32.0f
                                         : code_of(load4(x + k) * sub[j].inverse);
      std::memcpy(code + k, &codes, sizeof codes);
    }
  }
  uint8_t stored[kWeights];
  for (size_t k = 0; k < kWeights; ++k) stored[k] = static_cast<uint8_t>(static_cast<int>(code[k] + 32.0f));
  store_codes(stored, block);
}

}  // namespace

void encode(const float* x, size_t n_blocks, uint8_t* blocks) noexcept {
  for (size_t b = 0; b < n_blocks; ++b) encode_block(x + b * kWeights, blocks + b * kBytes);
}

void unpack_group(const uint8_t* row, size_t group, WeightGroup* out) noexcept {
  const uint8_t* block = row + group / kGroups * kBytes;
  const size_t g = group % kGroups, n = g / 4, k = g % 4;
  const uint8_t* ql = block + kQl + 64 * n + 32 * (k % 2);
  const uint8_t* qh = block + kQh + 32 * n;
  const size_t nibble_shift = k < 2 ? 0 : 4;
  for (size_t l = 0; l < kGroup; ++l) {
    const int low = (ql[l] >> nibble_shift) & 15;
    const int high = (qh[l] >> (2 * k)) & 3;
    out->code[l] = static_cast<int8_t>((low | high << 4) - 32);
  }
  set_plain(load_f16(block + kD), out);
  for (size_t half = 0; half < 2; ++half) {
    out->scale[half] = static_cast<int8_t>(block[kScales + 2 * g + half]);
  }
}

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  decode_groups<unpack_group>(blocks, n_blocks * kGroups, out);
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  return first_non_finite_f16<kBytes, kD>(blocks, n_blocks);
}

}  // namespace quern::formats::q6_k
