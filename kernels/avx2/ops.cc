// The elementwise operations with AVX2, FMA and F16C: the scalar set's bits. Sixteen lanes of the definition
// are two registers here.
#include <immintrin.h>

#include "kernels/avx2/avx2_ops.h"
#include "kernels/avx2/float_lanes.h"
#include "kernels/avx2/lanes.h"
#include "kernels/exp2q_lanes.h"
#include "kernels/softcap_lanes.h"

namespace quern::avx2 {

namespace {

__m256 exp2q(__m256 x) {
  // The minimum returns its second operand when one is NaN: NaN stays.
  return exp2q_below_126<Lanes8>(_mm256_min_ps(_mm256_set1_ps(126.0f), x));
}

void store_partial(__m256 value, size_t count, float* y) {
  alignas(32) float padded[8];
  _mm256_store_ps(padded, value);
  __builtin_memcpy(y, padded, count * sizeof(float));
}

// fold16 of lanes 0..3, 4..7, 8..11 and 12..15.
double fold16(const __m256d (&lanes)[4]) {
  const __m256d four = _mm256_add_pd(_mm256_add_pd(lanes[0], lanes[2]), _mm256_add_pd(lanes[1], lanes[3]));
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

uint32_t horizontal_max(__m256i x) {
  __m128i four = _mm_max_epu32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  four = _mm_max_epu32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(1, 0, 3, 2)));
  four = _mm_max_epu32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(2, 3, 0, 1)));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(four));
}

// codes: [32] -> the four sums of QuantizedRows::sums.
void sum_codes(__m256i codes, int16_t* sums) {
  // Sums of two neighbours: even lanes k % 4 in {0, 1}, odd lanes {2, 3}; then add pairs of such lanes within
  // each half of 16 codes.
  __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), codes);
  pairs = _mm256_add_epi16(pairs, _mm256_shuffle_epi32(pairs, _MM_SHUFFLE(1, 0, 3, 2)));
  pairs = _mm256_add_epi16(pairs, _mm256_shuffle_epi32(pairs, _MM_SHUFFLE(2, 3, 0, 1)));
  const int halves[2] = {_mm_cvtsi128_si32(_mm256_castsi256_si128(pairs)),
                         _mm_cvtsi128_si32(_mm256_extracti128_si256(pairs, 1))};
  __builtin_memcpy(sums, halves, sizeof(halves));
}

float quantize_group(const float* x, int8_t* codes, int16_t* sums) {
  __m256 values[4];
  __m256i largest = _mm256_setzero_si256();
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  for (int i = 0; i < 4; ++i) {
    values[i] = _mm256_loadu_ps(x + 8 * i);
    largest = _mm256_max_epu32(largest, _mm256_and_si256(_mm256_castps_si256(values[i]), magnitude));
  }
  const uint32_t bits = horizontal_max(largest);
  if (bits >= 0x7f800000u || bits < 0x0d800000u) {
    __builtin_memset(codes, 0, 32);
    __builtin_memset(sums, 0, 4 * sizeof(int16_t));
    return bits >= 0x7f800000u ? __builtin_nanf("") : 0.0f;
  }
  float amax;
  __builtin_memcpy(&amax, &bits, sizeof(amax));
  const __m256 inverse = _mm256_set1_ps(127 / amax);
  __m256i rounded[4];
  for (int i = 0; i < 4; ++i) rounded[i] = _mm256_cvtps_epi32(_mm256_mul_ps(values[i], inverse));
  // The packs work within 128-bit halves and leave groups of four codes in the order 0 2 4 6 | 1 3 5 7.
  const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(rounded[0], rounded[1]),
                                            _mm256_packs_epi32(rounded[2], rounded[3]));
  const __m256i in_order = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), in_order);
  sum_codes(in_order, sums);
  return amax / 127;
}

// The last pairs of a head that do not fill a register, and heads of other widths.
void rope_pairs(float* x, size_t begin, size_t end, const float* cos_sin) {
  for (size_t i = begin; i < end; i += 2) {
    const float x0 = x[i], x1 = x[i + 1], c = cos_sin[i], s = cos_sin[i + 1];
    x[i] = __builtin_fmaf(x0, c, -(x1 * s));
    x[i + 1] = __builtin_fmaf(x1, c, x0 * s);
  }
}

__m256 gelu8(__m256 g) {
  const __m256 c =
      _mm256_fmadd_ps(_mm256_mul_ps(g, g), _mm256_set1_ps(-0x1.a5a7d0p-4f), _mm256_set1_ps(-0x1.26aec2p+1f));
  return _mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.0f), exp2q(_mm256_mul_ps(g, c))));
}

// x / (1 + exp2q(y * factor)).
__m256 over_one_plus_exp2q(__m256 x, __m256 y, float factor) {
  const __m256 e = exp2q(_mm256_mul_ps(y, _mm256_set1_ps(factor)));
  return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), e));
}

template <Activation kKind>
__m256 activate8(__m256 g, __m256 u) {
  // Minimum and maximum return their second operand when one is NaN: NaN stays.
  if constexpr (kKind == Activation::kSwiglu) {
    return _mm256_mul_ps(over_one_plus_exp2q(g, g, -0x1.715476p0f), u);
  } else if constexpr (kKind == Activation::kSilu) {
    return over_one_plus_exp2q(g, g, -0x1.715476p0f);
  } else if constexpr (kKind == Activation::kGeglu) {
    return _mm256_mul_ps(gelu8(g), u);
  } else if constexpr (kKind == Activation::kGelu) {
    return gelu8(g);
  } else if constexpr (kKind == Activation::kRelu2) {
    const __m256 r = _mm256_max_ps(_mm256_setzero_ps(), g);
    return _mm256_mul_ps(r, r);
  } else if constexpr (kKind == Activation::kGptOss) {
    const __m256 top = _mm256_min_ps(_mm256_set1_ps(7.0f), g);
    const __m256 low = _mm256_max_ps(_mm256_set1_ps(-7.0f), u);
    const __m256 clamped = _mm256_min_ps(_mm256_set1_ps(7.0f), low);
    return _mm256_mul_ps(over_one_plus_exp2q(top, top, -0x1.3a4cbep+1f),
                         _mm256_add_ps(clamped, _mm256_set1_ps(1.0f)));
  } else {
    return over_one_plus_exp2q(u, g, -0x1.715476p0f);
  }
}

template <Activation kKind>
void activate_all(const float* gate, const float* up, size_t n, float* h) {
  if constexpr (!is_gated(kKind)) up = gate;  // not used
  size_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(h + i, activate8<kKind>(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
  const size_t rest = n - i;
  if (rest != 0)
    store_partial(activate8<kKind>(load_partial(gate + i, rest), load_partial(up + i, rest)), rest, h + i);
}

// exp((z - z_max)) of eight values.
__m256 exp_below(__m256 z, __m256 z_max) {
  return exp2q(_mm256_mul_ps(_mm256_sub_ps(z, z_max), _mm256_set1_ps(0x1.715476p0f)));
}

void add_to_lanes(__m256 values, __m256d* lanes) {
  lanes[0] = _mm256_add_pd(lanes[0], _mm256_cvtps_pd(_mm256_castps256_ps128(values)));
  lanes[1] = _mm256_add_pd(lanes[1], _mm256_cvtps_pd(_mm256_extractf128_ps(values, 1)));
}

}  // namespace

void quantize_activations(const float* x, size_t n_tokens, size_t k, const QuantizedRows& out) noexcept {
  for (size_t group = 0; group < n_tokens * k / 32; ++group)
    out.scales[group] = quantize_group(x + group * 32, out.codes + group * 32, out.sums + group * 4);
}

void rms_norm(const float* x, const float* weight, size_t n, float eps, float* y) noexcept {
  __m256 low = _mm256_setzero_ps(), high = _mm256_setzero_ps();
  size_t k = 0;
  for (; k + 16 <= n; k += 16) {
    const __m256 a = _mm256_loadu_ps(x + k), b = _mm256_loadu_ps(x + k + 8);
    low = _mm256_fmadd_ps(a, a, low);
    high = _mm256_fmadd_ps(b, b, high);
  }
  // Zeros leave a lane as it is: it is never -0.
  const size_t rest = n - k, rest_low = rest < 8 ? rest : 8;
  const __m256 a = load_partial(x + k, rest_low), b = load_partial(x + k + rest_low, rest - rest_low);
  const float ss = fold16(_mm256_fmadd_ps(a, a, low), _mm256_fmadd_ps(b, b, high));

  const float r =
      ss < __builtin_inff() ? 1 / __builtin_sqrtf(ss / static_cast<float>(n) + eps) : __builtin_nanf("");
  const __m256 scale = _mm256_set1_ps(r);
  for (k = 0; k + 8 <= n; k += 8) {
    const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(x + k), scale);
    _mm256_storeu_ps(y + k, _mm256_mul_ps(scaled, _mm256_loadu_ps(weight + k)));
  }
  for (; k < n; ++k) y[k] = (x[k] * r) * weight[k];
}

void layer_norm(const float* x, const float* weight, const float* bias, size_t n, float eps,
                float* y) noexcept {
  __m256 low = _mm256_setzero_ps(), high = _mm256_setzero_ps();
  const size_t whole = n / 16 * 16, rest = n - whole, rest_low = rest < 8 ? rest : 8;
  for (size_t k = 0; k < whole; k += 16) {
    low = _mm256_add_ps(low, _mm256_loadu_ps(x + k));
    high = _mm256_add_ps(high, _mm256_loadu_ps(x + k + 8));
  }
  // Zeros leave a lane as it is: it is never -0.
  low = _mm256_add_ps(low, load_partial(x + whole, rest_low));
  high = _mm256_add_ps(high, load_partial(x + whole + rest_low, rest - rest_low));
  const float mean = fold16(low, high) / static_cast<float>(n);
  const __m256 m = _mm256_set1_ps(mean);

  low = high = _mm256_setzero_ps();
  for (size_t k = 0; k < whole; k += 16) {
    const __m256 a = _mm256_sub_ps(_mm256_loadu_ps(x + k), m);
    const __m256 b = _mm256_sub_ps(_mm256_loadu_ps(x + k + 8), m);
    low = _mm256_fmadd_ps(a, a, low);
    high = _mm256_fmadd_ps(b, b, high);
  }
  float lanes[16], d[16] = {};
  for (size_t k = 0; k < rest; ++k) d[k] = x[whole + k] - mean;
  low = _mm256_fmadd_ps(_mm256_loadu_ps(d), _mm256_loadu_ps(d), low);
  high = _mm256_fmadd_ps(_mm256_loadu_ps(d + 8), _mm256_loadu_ps(d + 8), high);
  _mm256_storeu_ps(lanes, low);
  _mm256_storeu_ps(lanes + 8, high);
  const float ss = Lanes8::fold16(lanes);

  const float r =
      ss < __builtin_inff() ? 1 / __builtin_sqrtf(ss / static_cast<float>(n) + eps) : __builtin_nanf("");
  const __m256 scale = _mm256_set1_ps(r);
  size_t k = 0;
  for (; k + 8 <= n; k += 8) {
    const __m256 scaled = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x + k), m), scale);
    __m256 out = _mm256_mul_ps(scaled, _mm256_loadu_ps(weight + k));
    if (bias != nullptr) out = _mm256_add_ps(out, _mm256_loadu_ps(bias + k));
    _mm256_storeu_ps(y + k, out);
  }
  for (; k < n; ++k) {
    y[k] = ((x[k] - mean) * r) * weight[k];
    if (bias != nullptr) y[k] = y[k] + bias[k];
  }
}

void rope(float* x, size_t n_heads, size_t head_dim, size_t rotary_dim, const float* cos_sin) noexcept {
  const size_t vectors_end = rotary_dim / 8 * 8;
  for (size_t head = 0; head < n_heads; ++head, x += head_dim) {
    for (size_t i = 0; i < vectors_end; i += 8) {
      const __m256 pairs = _mm256_loadu_ps(x + i), angles = _mm256_loadu_ps(cos_sin + i);
      const __m256 swapped = _mm256_permute_ps(pairs, _MM_SHUFFLE(2, 3, 0, 1));
      const __m256 products = _mm256_mul_ps(swapped, _mm256_movehdup_ps(angles));
      // Even lanes subtract (x0 c - x1 s), odd lanes add (x1 c + x0 s).
      _mm256_storeu_ps(x + i, _mm256_fmaddsub_ps(pairs, _mm256_moveldup_ps(angles), products));
    }
    rope_pairs(x, vectors_end, rotary_dim, cos_sin);
  }
}

void rope_halves(float* x, size_t n_heads, size_t head_dim, size_t rotary_dim,
                 const float* cos_sin) noexcept {
  const size_t half = rotary_dim / 2;
  for (size_t head = 0; head < n_heads; ++head, x += head_dim) {
    size_t i = 0;
    for (; i + 8 <= half; i += 8) {
      const __m256 x0 = _mm256_loadu_ps(x + i), x1 = _mm256_loadu_ps(x + half + i);
      const __m256 c = _mm256_loadu_ps(cos_sin + i), s = _mm256_loadu_ps(cos_sin + half + i);
      _mm256_storeu_ps(x + i, _mm256_fmsub_ps(x0, c, _mm256_mul_ps(x1, s)));
      _mm256_storeu_ps(x + half + i, _mm256_fmadd_ps(x1, c, _mm256_mul_ps(x0, s)));
    }
    for (; i < half; ++i) {
      const float x0 = x[i], x1 = x[half + i], c = cos_sin[i], s = cos_sin[half + i];
      x[i] = __builtin_fmaf(x0, c, -(x1 * s));
      x[half + i] = __builtin_fmaf(x1, c, x0 * s);
    }
  }
}

void activate(Activation kind, const float* gate, const float* up, size_t n, float* h) noexcept {
  switch (kind) {
    case Activation::kSwiglu:
      return activate_all<Activation::kSwiglu>(gate, up, n, h);
    case Activation::kSilu:
      return activate_all<Activation::kSilu>(gate, up, n, h);
    case Activation::kGeglu:
      return activate_all<Activation::kGeglu>(gate, up, n, h);
    case Activation::kGelu:
      return activate_all<Activation::kGelu>(gate, up, n, h);
    case Activation::kRelu2:
      return activate_all<Activation::kRelu2>(gate, up, n, h);
    case Activation::kGptOss:
      return activate_all<Activation::kGptOss>(gate, up, n, h);
    case Activation::kSigmoid:
      return activate_all<Activation::kSigmoid>(gate, up, n, h);
  }
}

void add_scaled(const float* x, float factor, size_t n, float* y) noexcept {
  const __m256 f = _mm256_set1_ps(factor);
  size_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(y + i, _mm256_fmadd_ps(f, _mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i)));
  for (; i < n; ++i) y[i] = __builtin_fmaf(factor, x[i], y[i]);
}

void add_products(const float* w, const float* x, size_t n, float* y) noexcept {
  size_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(y + i,
                     _mm256_fmadd_ps(_mm256_loadu_ps(w + i), _mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i)));
  for (; i < n; ++i) y[i] = __builtin_fmaf(w[i], x[i], y[i]);
}

// Lanes are columns of the state.
void delta_step(float* state, const float* q, const float* k, const float* v, float decay, float beta,
                size_t k_dim, size_t v_dim, float* out) noexcept {
  const __m256 d = _mm256_set1_ps(decay), b = _mm256_set1_ps(beta);
  size_t j = 0;
  for (; j + 8 <= v_dim; j += 8) {
    __m256 found = _mm256_setzero_ps(), o = _mm256_setzero_ps();
    for (size_t i = 0; i < k_dim; ++i) {
      float* const s = state + i * v_dim + j;
      const __m256 decayed = _mm256_mul_ps(_mm256_loadu_ps(s), d);
      _mm256_storeu_ps(s, decayed);
      found = _mm256_fmadd_ps(_mm256_set1_ps(k[i]), decayed, found);
    }
    const __m256 delta = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(v + j), found), b);
    for (size_t i = 0; i < k_dim; ++i) {
      float* const s = state + i * v_dim + j;
      const __m256 updated = _mm256_fmadd_ps(_mm256_set1_ps(k[i]), delta, _mm256_loadu_ps(s));
      _mm256_storeu_ps(s, updated);
      o = _mm256_fmadd_ps(_mm256_set1_ps(q[i]), updated, o);
    }
    _mm256_storeu_ps(out + j, o);
  }
  for (; j < v_dim; ++j) {
    float found = 0, o = 0;
    for (size_t i = 0; i < k_dim; ++i) {
      state[i * v_dim + j] = state[i * v_dim + j] * decay;
      found = __builtin_fmaf(k[i], state[i * v_dim + j], found);
    }
    const float delta = (v[j] - found) * beta;
    for (size_t i = 0; i < k_dim; ++i) {
      state[i * v_dim + j] = __builtin_fmaf(k[i], delta, state[i * v_dim + j]);
      o = __builtin_fmaf(q[i], state[i * v_dim + j], o);
    }
    out[j] = o;
  }
}

void softcap(float* x, size_t n, Softcap cap) noexcept {
  size_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(x + i, softcap_lanes<Lanes8>(_mm256_loadu_ps(x + i), cap));
  const size_t rest = n - i;
  if (rest != 0) store_partial(softcap_lanes<Lanes8>(load_partial(x + i, rest), cap), rest, x + i);
}

double sum_exp(const float* z, size_t n, float z_max) noexcept {
  const __m256 top = _mm256_set1_ps(z_max);
  __m256d lanes[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd()};
  for (size_t k = 0; k < n; k += 8) {
    const size_t count = n - k < 8 ? n - k : 8;
    __m256 e = exp_below(load_partial(z + k, count), top);
    if (count < 8) {
      const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
      const __m256i valid = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
      e = _mm256_and_ps(e, _mm256_castsi256_ps(valid));
    }
    add_to_lanes(e, lanes + (k % 16 == 0 ? 0 : 2));
  }
  return fold16(lanes);
}

}  // namespace quern::avx2
