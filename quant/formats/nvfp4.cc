// NVFP4: 64 weights in 36 bytes, 4 sub-blocks of 16. weight = d * kMxfp4Values[code], code 0..15.
//
//   byte 0         4                                           36
//        | d[4]:   | qs[32]: 8 bytes a sub-block: code j (low), |
//          UE4M3     code j + 8 (high)
//
// The table of values holds twice those of E2M1, so d is half of what its byte stands for.
#include "quant/formats/formats.h"
#include "quant/formats/ue4m3.h"

namespace quern::formats::nvfp4 {
namespace {

constexpr size_t kD = 0, kQs = 4;  // byte offsets
constexpr size_t kSub = 16, kGroups = kWeights / kGroup;

}  // namespace

void unpack_group(const uint8_t* row, size_t group, WeightGroup* out) noexcept {
  const uint8_t* block = row + group / kGroups * kBytes;
  const size_t g = group % kGroups;
  for (size_t k = 0; k < kGroup; ++k) {
    const uint8_t byte = block[kQs + kSub * g + k / kSub * 8 + k % 8];
    out->code[k] = kMxfp4Values[k % kSub < 8 ? byte & 15 : byte >> 4];
  }
  set_plain(half_of_ue4m3(block[kD + 2 * g]), out);
  out->two_steps = true;
  out->d_second = half_of_ue4m3(block[kD + 2 * g + 1]);
}

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  decode_groups<unpack_group>(blocks, n_blocks * kGroups, out);
}

// All bytes are numbers.
size_t first_non_finite(const uint8_t*, size_t n_blocks) noexcept { return n_blocks; }

}  // namespace quern::formats::nvfp4
