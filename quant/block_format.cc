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
  return {dtype, name, block_weights, block_bytes, nullptr, nullptr, nullptr, nullptr, nullptr, {}};
}

// clang-format off
constexpr BlockFormat kFormats[] = {
    // dtype, name, weights and bytes per block, decode, encode, encode_weighted, unpack_group, first_non_finite, panel
    {DType::F32, "F32", f32::kWeights, f32::kBytes,
     f32::decode, f32::encode, nullptr, nullptr, f32::first_non_finite, panel_runs::kF32},
    {DType::F16, "F16", f16::kWeights, f16::kBytes,
     f16::decode, f16::encode, nullptr, nullptr, f16::first_non_finite, panel_runs::kF16},
    {DType::Q4_0, "Q4_0", q4_0::kWeights, q4_0::kBytes,
     q4_0::decode, q4_0::encode, q4_0::encode_weighted, q4_0::unpack_group, q4_0::first_non_finite, panel_runs::kQ4_0},
    {DType::Q4_1, "Q4_1", q4_1::kWeights, q4_1::kBytes,
     q4_1::decode, q4_1::encode, q4_1::encode_weighted, q4_1::unpack_group, q4_1::first_non_finite, panel_runs::kQ4_1},
    {DType::Q5_0, "Q5_0", q5_0::kWeights, q5_0::kBytes,
     q5_0::decode, q5_0::encode, q5_0::encode_weighted, q5_0::unpack_group, q5_0::first_non_finite, panel_runs::kQ5_0},
    {DType::Q5_1, "Q5_1", q5_1::kWeights, q5_1::kBytes,
     q5_1::decode, q5_1::encode, q5_1::encode_weighted, q5_1::unpack_group, q5_1::first_non_finite, panel_runs::kQ5_1},
    {DType::Q8_0, "Q8_0", q8_0::kWeights, q8_0::kBytes,
     q8_0::decode, q8_0::encode, nullptr, q8_0::unpack_group, q8_0::first_non_finite, panel_runs::kQ8_0},
    {DType::Q2_K, "Q2_K", q2_k::kWeights, q2_k::kBytes,
     q2_k::decode, q2_k::encode, q2_k::encode_weighted, q2_k::unpack_group, q2_k::first_non_finite, panel_runs::kQ2_K},
    {DType::Q3_K, "Q3_K", q3_k::kWeights, q3_k::kBytes,
     q3_k::decode, q3_k::encode, q3_k::encode_weighted, q3_k::unpack_group, q3_k::first_non_finite, panel_runs::kQ3_K},
    {DType::Q4_K, "Q4_K", q4_k::kWeights, q4_k::kBytes,
     q4_k::decode, q4_k::encode, q4_k::encode_weighted, q4_k::unpack_group, q4_k::first_non_finite, panel_runs::kQ4_K},
    {DType::Q5_K, "Q5_K", q5_k::kWeights, q5_k::kBytes,
     q5_k::decode, q5_k::encode, q5_k::encode_weighted, q5_k::unpack_group, q5_k::first_non_finite, panel_runs::kQ5_K},
    {DType::Q6_K, "Q6_K", q6_k::kWeights, q6_k::kBytes,
     q6_k::decode, q6_k::encode, q6_k::encode_weighted, q6_k::unpack_group, q6_k::first_non_finite, panel_runs::kQ6_K},
    {DType::IQ2_XXS, "IQ2_XXS", iq2_xxs::kWeights, iq2_xxs::kBytes,
     iq2_xxs::decode, nullptr, nullptr, iq2_xxs::unpack_group, iq2_xxs::first_non_finite, {}},
    {DType::IQ2_XS, "IQ2_XS", iq2_xs::kWeights, iq2_xs::kBytes,
     iq2_xs::decode, nullptr, nullptr, iq2_xs::unpack_group, iq2_xs::first_non_finite, {}},
    {DType::IQ3_XXS, "IQ3_XXS", iq3_xxs::kWeights, iq3_xxs::kBytes,
     iq3_xxs::decode, nullptr, nullptr, iq3_xxs::unpack_group, iq3_xxs::first_non_finite, {}},
    {DType::IQ1_S, "IQ1_S", iq1_s::kWeights, iq1_s::kBytes,
     iq1_s::decode, nullptr, nullptr, iq1_s::unpack_group, iq1_s::first_non_finite, {}},
    {DType::IQ4_NL, "IQ4_NL", iq4_nl::kWeights, iq4_nl::kBytes,
     iq4_nl::decode, iq4_nl::encode, iq4_nl::encode_weighted, iq4_nl::unpack_group, iq4_nl::first_non_finite, panel_runs::kIQ4_NL},
    {DType::IQ3_S, "IQ3_S", iq3_s::kWeights, iq3_s::kBytes,
     iq3_s::decode, nullptr, nullptr, iq3_s::unpack_group, iq3_s::first_non_finite, {}},
    {DType::IQ2_S, "IQ2_S", iq2_s::kWeights, iq2_s::kBytes,
     iq2_s::decode, nullptr, nullptr, iq2_s::unpack_group, iq2_s::first_non_finite, {}},
    {DType::IQ4_XS, "IQ4_XS", iq4_xs::kWeights, iq4_xs::kBytes,
     iq4_xs::decode, iq4_xs::encode, iq4_xs::encode_weighted, iq4_xs::unpack_group, iq4_xs::first_non_finite, panel_runs::kIQ4_XS},
    listed(DType::I8, "I8", 1, 1),
    listed(DType::I16, "I16", 1, 2),
    listed(DType::I32, "I32", 1, 4),
    listed(DType::I64, "I64", 1, 8),
    listed(DType::F64, "F64", 1, 8),
    {DType::IQ1_M, "IQ1_M", iq1_m::kWeights, iq1_m::kBytes,
     iq1_m::decode, nullptr, nullptr, iq1_m::unpack_group, iq1_m::first_non_finite, {}},
    {DType::BF16, "BF16", bf16::kWeights, bf16::kBytes,
     bf16::decode, bf16::encode, nullptr, nullptr, bf16::first_non_finite, panel_runs::kF16},
    {DType::TQ1_0, "TQ1_0", tq1_0::kWeights, tq1_0::kBytes,
     tq1_0::decode, nullptr, nullptr, tq1_0::unpack_group, tq1_0::first_non_finite, {}},
    {DType::TQ2_0, "TQ2_0", tq2_0::kWeights, tq2_0::kBytes,
     tq2_0::decode, nullptr, nullptr, tq2_0::unpack_group, tq2_0::first_non_finite, panel_runs::kTQ2_0},
    {DType::MXFP4, "MXFP4", mxfp4::kWeights, mxfp4::kBytes,
     mxfp4::decode, mxfp4::encode, nullptr, mxfp4::unpack_group, mxfp4::first_non_finite, panel_runs::kMXFP4},
    {DType::NVFP4, "NVFP4", nvfp4::kWeights, nvfp4::kBytes,
     nvfp4::decode, nullptr, nullptr, nvfp4::unpack_group, nvfp4::first_non_finite, {}},
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
