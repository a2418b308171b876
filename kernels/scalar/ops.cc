// The operations of arithmetic.md, written as it writes them: the reference that every other set equals bit
// for bit. Right first; speed is for the other sets.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/scalar/exp2q.h"
#include "kernels/scalar/scalar_ops.h"
#include "quant/float16.h"

namespace quern::scalar {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// fold16 of arithmetic.md, rule 3. Overwrites lanes.
template <class T>
T fold16(T (&lanes)[16]) {
  for (int h = 8; h >= 1; h /= 2)
    for (int i = 0; i < h; ++i) lanes[i] = lanes[i] + lanes[i + h];
  return lanes[0];
}

uint16_t saturated_f16(float value) {
  // Overflow would turn a large key into an infinite score.
  if (std::isfinite(value)) value = std::clamp(value, -65504.0f, 65504.0f);
  return f16_from_f32(value);
}

// One cache's elements, whatever their type.
class KvReader {
 public:
  KvReader(const KvHead& head, KvType type, size_t head_dim)
      : head_(head), type_(type), head_dim_(head_dim) {}

  static size_t k_index(size_t key, size_t d, size_t head_dim) {
    return (key / 16) * head_dim * 16 + d * 16 + key % 16;
  }
  float k(size_t key, size_t d) const { return element(head_.k, k_index(key, d, head_dim_)); }
  float v(size_t key, size_t d) const { return element(head_.v, key * head_dim_ + d); }

 private:
  float element(const void* base, size_t i) const {
    return type_ == KvType::kF16 ? f32_from_f16(static_cast<const uint16_t*>(base)[i])
                                 : static_cast<const float*>(base)[i];
  }
  KvHead head_;
  KvType type_;
  size_t head_dim_;
};

// The running softmax over one segment's tiles.
struct Segment {
  float m = -kInfinity;
  float lanes[16] = {};
};

// Steps 1, 3, 4 and 5 for the valid keys [begin, end) of one tile. q: scaled. acc: [head_dim].
void attend_tile(const KvReader& cache, size_t head_dim, size_t begin, size_t end, const float* q,
                 Segment* segment, float* acc) {
  const size_t tile = begin / kAttentionTile * kAttentionTile;
  float p[kAttentionTile] = {};
  float m = segment->m;
  for (size_t j = begin; j < end; ++j) {
    float s = 0;
    for (size_t d = 0; d < head_dim; ++d) s = std::fma(q[d], cache.k(j, d), s);
    p[j - tile] = s;
    m = std::max(m, s);
  }
  const float alpha = exp2q(segment->m - m);
  segment->m = m;
  for (size_t j = begin; j < end; ++j) p[j - tile] = exp2q(p[j - tile] - m);

  for (size_t i = 0; i < 16; ++i) {
    float& lane = segment->lanes[i];
    lane = std::fma(lane, alpha, p[i]);
    for (size_t block = 16; block < kAttentionTile; block += 16) lane = lane + p[block + i];
  }
  for (size_t d = 0; d < head_dim; ++d) {
    acc[d] = acc[d] * alpha;
    for (size_t j = begin; j < end; ++j) acc[d] = std::fma(p[j - tile], cache.v(j, d), acc[d]);
  }
}

// One query head. scratch: [2, head_dim].
void attend_head(const AttentionArgs& args, const float* query, float* scratch, float* out) {
  const size_t n = args.head_dim;
  const KvReader cache(args.cache, args.type, n);
  float* q = scratch;
  float* acc = scratch + n;
  for (size_t d = 0; d < n; ++d) q[d] = query[d] * args.kappa;

  float total_m = 0, total_l = 0;  // M and Lambda; A is gathered in out
  const size_t end = args.position + 1;
  const size_t first_segment = args.first_key / kAttentionSegment;
  for (size_t g = first_segment; g * kAttentionSegment < end; ++g) {
    Segment segment;
    std::fill(acc, acc + n, 0.0f);
    const size_t segment_end = std::min(end, (g + 1) * kAttentionSegment);
    for (size_t begin = std::max(args.first_key, g * kAttentionSegment); begin < segment_end;) {
      const size_t tile_end = std::min(segment_end, (begin / kAttentionTile + 1) * kAttentionTile);
      attend_tile(cache, n, begin, tile_end, q, &segment, acc);
      begin = tile_end;
    }
    const float l = fold16(segment.lanes);
    if (g == first_segment) {
      total_m = segment.m;
      total_l = l;
      std::copy(acc, acc + n, out);
      continue;
    }
    const float m = std::max(total_m, segment.m);
    const float alpha = exp2q(total_m - m);
    const float beta = exp2q(segment.m - m);
    total_l = std::fma(total_l, alpha, l * beta);
    for (size_t d = 0; d < n; ++d) out[d] = std::fma(out[d], alpha, acc[d] * beta);
    total_m = m;
  }
  const float inverse = 1 / total_l;
  for (size_t d = 0; d < n; ++d) out[d] = out[d] * inverse;
}

// 32 values; codes: [32], sums: [2, 2]. Returns the scale.
float quantize_group(const float* x, int8_t* codes, int16_t* sums) {
  uint32_t largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
  std::fill(codes, codes + 32, int8_t{0});
  std::fill(sums, sums + 4, int16_t{0});
  if (largest >= 0x7f800000u) return std::numeric_limits<float>::quiet_NaN();
  if (largest < 0x0d800000u) return 0.0f;  // below 2^-100 the inverse would leave the normal range
  const float amax = std::bit_cast<float>(largest);
  const float inverse = 127 / amax;
  for (int i = 0; i < 32; ++i) {
    const int code = static_cast<int>(std::lrint(x[i] * inverse));
    codes[i] = static_cast<int8_t>(code);
    int16_t& sum = sums[i / 16 * 2 + i % 4 / 2];
    sum = static_cast<int16_t>(sum + code);
  }
  return amax / 127;
}

}  // namespace

void quantize_activations(const float* x, size_t n_tokens, size_t k, const QuantizedRows& out) noexcept {
  for (size_t group = 0; group < n_tokens * k / 32; ++group)
    out.scales[group] = quantize_group(x + group * 32, out.codes + group * 32, out.sums + group * 4);
}

void rms_norm(const float* x, const float* weight, size_t n, float eps, float* y) noexcept {
  float lanes[16] = {};
  for (size_t k = 0; k < n; ++k) lanes[k % 16] = std::fma(x[k], x[k], lanes[k % 16]);
  const float ss = fold16(lanes);
  const float r = ss < kInfinity ? 1 / std::sqrt(ss / static_cast<float>(n) + eps)
                                 : std::numeric_limits<float>::quiet_NaN();
  for (size_t k = 0; k < n; ++k) y[k] = (x[k] * r) * weight[k];
}

void rope(float* x, size_t n_heads, size_t head_dim, size_t rotary_dim, const float* cos_sin) noexcept {
  for (size_t head = 0; head < n_heads; ++head) {
    for (size_t i = 0; i < rotary_dim; i += 2) {
      float* pair = x + head * head_dim + i;
      const float x0 = pair[0], x1 = pair[1], c = cos_sin[i], s = cos_sin[i + 1];
      pair[0] = std::fma(x0, c, -(x1 * s));
      pair[1] = std::fma(x1, c, x0 * s);
    }
  }
}

void swiglu(const float* gate, const float* up, size_t n, float* h) noexcept {
  for (size_t i = 0; i < n; ++i) {
    const float e = exp2q(gate[i] * -0x1.715476p0f);
    h[i] = (gate[i] / (1 + e)) * up[i];
  }
}

bool store_kv(const StoreKvArgs& args) noexcept {
  bool no_nan = true;
  for (size_t d = 0; d < args.head_dim; ++d) {
    const size_t k = KvReader::k_index(args.position, d, args.head_dim);
    const size_t v = args.position * args.head_dim + d;
    if (args.type == KvType::kF16) {
      static_cast<uint16_t*>(args.cache.k)[k] = saturated_f16(args.k[d]);
      static_cast<uint16_t*>(args.cache.v)[v] = saturated_f16(args.v[d]);
    } else {
      static_cast<float*>(args.cache.k)[k] = args.k[d];
      static_cast<float*>(args.cache.v)[v] = args.v[d];
    }
    no_nan = no_nan && !std::isnan(args.k[d]) && !std::isnan(args.v[d]);
  }
  return no_nan;
}

void attend(const AttentionArgs& args) noexcept {
  for (size_t head = 0; head < args.n_heads; ++head)
    attend_head(args, args.q + head * args.head_dim, args.scratch, args.out + head * args.head_dim);
}

double sum_exp(const float* z, size_t n, float z_max) noexcept {
  double lanes[16] = {};
  for (size_t k = 0; k < n; ++k) lanes[k % 16] += static_cast<double>(exp2q((z[k] - z_max) * 0x1.715476p0f));
  return fold16(lanes);
}

}  // namespace quern::scalar
