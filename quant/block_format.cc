#include "quant/block_format.h"

#include <algorithm>

#include "quant/error.h"
#include "quant/formats/formats.h"

namespace quern {
namespace {

using namespace formats;

// A format that files may hold and `inspect` lists, and whose numbers are not read here.
constexpr BlockFormat listed(DType dtype, std::string_view name, uint32_t block_weights,
                             uint32_t block_bytes) {
  return {dtype, name, block_weights, block_bytes, nullptr, nullptr, nullptr, nullptr};
}

// clang-format off
constexpr BlockFormat kFormats[] = {
    // dtype, name, weights and bytes per block, decode, encode, unpack_group, first_non_finite
    {DType::F32, "F32", f32::kWeights, f32::kBytes,
     f32::decode, f32::encode, nullptr, f32::first_non_finite},
    {DType::F16, "F16", f16::kWeights, f16::kBytes,
     f16::decode, f16::encode, nullptr, f16::first_non_finite},
    {DType::Q4_0, "Q4_0", q4_0::kWeights, q4_0::kBytes,
     q4_0::decode, q4_0::encode, q4_0::unpack_group, q4_0::first_non_finite},
    {DType::Q4_1, "Q4_1", q4_1::kWeights, q4_1::kBytes,
     q4_1::decode, q4_1::encode, q4_1::unpack_group, q4_1::first_non_finite},
    {DType::Q5_0, "Q5_0", q5_0::kWeights, q5_0::kBytes,
     q5_0::decode, q5_0::encode, q5_0::unpack_group, q5_0::first_non_finite},
    {DType::Q5_1, "Q5_1", q5_1::kWeights, q5_1::kBytes,
     q5_1::decode, q5_1::encode, q5_1::unpack_group, q5_1::first_non_finite},
    {DType::Q8_0, "Q8_0", q8_0::kWeights, q8_0::kBytes,
     q8_0::decode, q8_0::encode, q8_0::unpack_group, q8_0::first_non_finite},
    {DType::Q2_K, "Q2_K", q2_k::kWeights, q2_k::kBytes,
     q2_k::decode, nullptr, q2_k::unpack_group, q2_k::first_non_finite},
    {DType::Q3_K, "Q3_K", q3_k::kWeights, q3_k::kBytes,
     q3_k::decode, nullptr, q3_k::unpack_group, q3_k::first_non_finite},
    {DType::Q4_K, "Q4_K", q4_k::kWeights, q4_k::kBytes,
     q4_k::decode, nullptr, q4_k::unpack_group, q4_k::first_non_finite},
    {DType::Q5_K, "Q5_K", q5_k::kWeights, q5_k::kBytes,
     q5_k::decode, nullptr, q5_k::unpack_group, q5_k::first_non_finite},
    {DType::Q6_K, "Q6_K", q6_k::kWeights, q6_k::kBytes,
     q6_k::decode, q6_k::encode, q6_k::unpack_group, q6_k::first_non_finite},
    listed(DType::IQ2_XXS, "IQ2_XXS", 256, 66),
    listed(DType::IQ2_XS, "IQ2_XS", 256, 74),
    listed(DType::IQ3_XXS, "IQ3_XXS", 256, 98),
    listed(DType::IQ1_S, "IQ1_S", 256, 50),
    {DType::IQ4_NL, "IQ4_NL", iq4_nl::kWeights, iq4_nl::kBytes,
     iq4_nl::decode, nullptr, iq4_nl::unpack_group, iq4_nl::first_non_finite},
    listed(DType::IQ3_S, "IQ3_S", 256, 110),
    listed(DType::IQ2_S, "IQ2_S", 256, 82),
    {DType::IQ4_XS, "IQ4_XS", iq4_xs::kWeights, iq4_xs::kBytes,
     iq4_xs::decode, nullptr, iq4_xs::unpack_group, iq4_xs::first_non_finite},
    listed(DType::I8, "I8", 1, 1),
    listed(DType::I16, "I16", 1, 2),
    listed(DType::I32, "I32", 1, 4),
    listed(DType::I64, "I64", 1, 8),
    listed(DType::F64, "F64", 1, 8),
    listed(DType::IQ1_M, "IQ1_M", 256, 56),
    {DType::BF16, "BF16", bf16::kWeights, bf16::kBytes,
     bf16::decode, bf16::encode, nullptr, bf16::first_non_finite},
    listed(DType::TQ1_0, "TQ1_0", 256, 54),
    listed(DType::TQ2_0, "TQ2_0", 256, 66),
    listed(DType::MXFP4, "MXFP4", 32, 17),
};
// clang-format on

}  // namespace

std::span<const BlockFormat> block_formats() noexcept { return kFormats; }

const BlockFormat* find_block_format(DType dtype) noexcept {
  const auto* found = std::ranges::find(kFormats, dtype, &BlockFormat::dtype);
  return found == std::end(kFormats) ? nullptr : found;
}

const BlockFormat& block_format(DType dtype) noexcept {
  const BlockFormat* found = find_block_format(dtype);
  QUERN_CHECK(found != nullptr);
  return *found;
}

}  // namespace quern
