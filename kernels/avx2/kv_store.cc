// Storing keys and values with AVX2 and F16C: the scalar set's bytes.
#include <immintrin.h>

#include "kernels/avx2/avx2_ops.h"
#include "kernels/avx2/lanes.h"

namespace quern::avx2 {

namespace {

constexpr size_t kPanelBlockBytes = kKvBlockKeys * kv_row_bytes(KvType::kQ8_0, kKvGroup);    // 32 dims
constexpr size_t kValueGroupBytes = kAttentionTile * kv_row_bytes(KvType::kQ8_0, kKvGroup);  // 32 dims

// Nearest even; finite values saturate at +-65504, infinities and NaN stay.
__m128i saturated_f16(__m256 x) {
  const __m256 limit = _mm256_set1_ps(65504.0f);
  const __m256 minus_limit = _mm256_set1_ps(-65504.0f);
  const __m256 clamped = _mm256_max_ps(minus_limit, _mm256_min_ps(limit, x));
  const __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
  const __m256 infinite = _mm256_cmp_ps(magnitude, _mm256_set1_ps(__builtin_inff()), _CMP_EQ_OQ);
  return _mm256_cvtps_ph(_mm256_blendv_ps(clamped, x, infinite), _MM_FROUND_TO_NEAREST_INT);
}

// Stores `count` elements (<= 8) of x, `stride` elements apart.
void store_elements(__m256 x, size_t count, size_t stride, uint16_t* out) {
  alignas(16) uint16_t bits[8];
  _mm_store_si128(reinterpret_cast<__m128i*>(bits), saturated_f16(x));
  for (size_t i = 0; i < count; ++i) out[i * stride] = bits[i];
}
void store_elements(__m256 x, size_t count, size_t stride, float* out) {
  alignas(32) float values[8];
  _mm256_store_ps(values, x);
  for (size_t i = 0; i < count; ++i) out[i * stride] = values[i];
}

// Element: uint16_t (f16) or float.
template <class Element>
void store_floats(const StoreKvArgs& args) {
  const size_t n = args.head_dim;
  Element* const k_out = reinterpret_cast<Element*>(kv_keys(args.cache, args.type, n, args.position)) +
                         args.position % kKvBlockKeys;
  Element* const v_out = reinterpret_cast<Element*>(kv_values(args.cache, args.type, n, args.position));
  for (size_t d = 0; d < n; d += 8) {
    const size_t count = n - d < 8 ? n - d : 8;
    store_elements(load_partial(args.k + d, count), count, kKvBlockKeys, k_out + d * kKvBlockKeys);
    store_elements(load_partial(args.v + d, count), count, 1, v_out + kv_value_index(n, args.position, d));
  }
}

void store_f16(float x, uint8_t* out) {
  const int bits = _mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(x), _MM_FROUND_TO_NEAREST_INT));
  __builtin_memcpy(out, &bits, 2);
}

void store_codes(const StoreKvArgs& args) {
  const size_t n = args.head_dim, n_groups = n / kKvGroup;
  const size_t key = args.position % kKvBlockKeys, value = args.position % kAttentionTile;
  uint8_t* k_block = kv_keys(args.cache, args.type, n, args.position);
  uint8_t* v_group = kv_values(args.cache, args.type, n, args.position);
  for (size_t group = 0; group < n_groups;
       ++group, k_block += kPanelBlockBytes, v_group += kValueGroupBytes) {
    alignas(32) int8_t codes[kKvGroup];
    float scale;
    int16_t sums[4];
    quantize_activations(args.k + group * kKvGroup, 1, kKvGroup, {codes, &scale, sums});
    store_f16(scale, k_block + 2 * key);
    for (size_t step = 0; step < kKvGroup / 4; ++step)
      __builtin_memcpy(k_block + 2 * kKvBlockKeys + step * 4 * kKvBlockKeys + 4 * key, codes + 4 * step, 4);
    quantize_activations(args.v + group * kKvGroup, 1, kKvGroup, {codes, &scale, sums});
    store_f16(scale, v_group + 2 * value);
    for (size_t d = 0; d < kKvGroup; d += kKvBlockDims)
      __builtin_memcpy(v_group + 2 * kAttentionTile + kv_value_index(kKvGroup, args.position, d), codes + d,
                       kKvBlockDims);
  }
}

bool no_nan(const float* k, const float* v, size_t n) {
  __m256 nan = _mm256_setzero_ps();
  for (size_t d = 0; d < n; d += 8) {
    const size_t count = n - d < 8 ? n - d : 8;
    nan = _mm256_or_ps(nan,
                       _mm256_cmp_ps(load_partial(k + d, count), load_partial(v + d, count), _CMP_UNORD_Q));
  }
  return _mm256_movemask_ps(nan) == 0;
}

}  // namespace

bool store_kv(const StoreKvArgs& args) noexcept {
  if (args.type == KvType::kF16) store_floats<uint16_t>(args);
  if (args.type == KvType::kF32) store_floats<float>(args);
  if (args.type == KvType::kQ8_0) store_codes(args);
  return no_nan(args.k, args.v, args.head_dim);
}

}  // namespace quern::avx2
