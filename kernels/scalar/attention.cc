// Attention and the KV cache as arithmetic.md writes them: the reference that every other set equals bit for
// bit.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/scalar/exp2q.h"
#include "kernels/scalar/fold16.h"
#include "kernels/scalar/scalar_ops.h"
#include "quant/float16.h"

namespace quern::scalar {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr size_t kKeyPanelBlock = kKvBlockKeys * kv_row_bytes(KvType::kQ8_0, kKvGroup);  // bytes; 32 dims
constexpr size_t kValueGroup = kAttentionTile * kv_row_bytes(KvType::kQ8_0, kKvGroup);   // bytes; 32 dims

template <class T>
T load(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

template <class T>
void store(T value, uint8_t* p) {
  std::memcpy(p, &value, sizeof value);
}

uint16_t saturated_f16(float value) {
  // Overflow would turn a large key into an infinite score.
  if (std::isfinite(value)) value = std::clamp(value, -65504.0f, 65504.0f);
  return f16_from_f32(value);
}

// One head's cache, element by element.
struct Cache {
  KvHead head;
  KvType type;
  size_t head_dim;

  // F16, F32: the places of element d.
  uint8_t* k(size_t key, size_t d) const {
    return kv_keys(head, type, head_dim, key) + (d * kKvBlockKeys + key % kKvBlockKeys) * element_bytes();
  }
  uint8_t* v(size_t key, size_t d) const {
    return kv_values(head, type, head_dim, key) + kv_value_index(head_dim, key, d) * element_bytes();
  }
  // Q8_0: the places of element d's scale and code.
  uint8_t* k_scale(size_t key, size_t d) const { return k_block(key, d) + 2 * (key % kKvBlockKeys); }
  uint8_t* k_code(size_t key, size_t d) const {
    return k_block(key, d) + 2 * kKvBlockKeys + d % kKvGroup / 4 * (4 * kKvBlockKeys) +
           4 * (key % kKvBlockKeys) + d % 4;
  }
  uint8_t* v_scale(size_t key, size_t d) const { return v_group(key, d) + 2 * (key % kAttentionTile); }
  uint8_t* v_code(size_t key, size_t d) const {
    return v_group(key, d) + 2 * kAttentionTile + kv_value_index(kKvGroup, key, d % kKvGroup);
  }

  float key_value(size_t key, size_t d) const { return decode(k(key, d)); }  // not of Q8_0
  float value(size_t key, size_t d) const {
    if (type != KvType::kQ8_0) return decode(v(key, d));
    return f32_from_f16(load<uint16_t>(v_scale(key, d))) * static_cast<float>(load<int8_t>(v_code(key, d)));
  }

 private:
  size_t element_bytes() const { return type == KvType::kF16 ? 2 : 4; }
  float decode(const uint8_t* p) const {
    return type == KvType::kF16 ? f32_from_f16(load<uint16_t>(p)) : load<float>(p);
  }
  uint8_t* k_block(size_t key, size_t d) const {
    return kv_keys(head, type, head_dim, key) + d / kKvGroup * kKeyPanelBlock;
  }
  uint8_t* v_group(size_t key, size_t d) const {
    return kv_values(head, type, head_dim, key) + d / kKvGroup * kValueGroup;
  }
};

// A query, scaled by kappa; for Q8_0 also as the activation quantizer sees it.
struct Query {
  const float* q;          // [head_dim]
  QuantizedRows as_codes;  // of one row
};

float score(const Cache& cache, const Query& query, size_t key) {
  float s = 0;
  if (cache.type != KvType::kQ8_0) {
    for (size_t d = 0; d < cache.head_dim; ++d) s = std::fma(query.q[d], cache.key_value(key, d), s);
    return s;
  }
  for (size_t begin = 0; begin < cache.head_dim; begin += kKvGroup) {
    int sum = 0;
    for (size_t d = begin; d < begin + kKvGroup; ++d)
      sum += load<int8_t>(cache.k_code(key, d)) * query.as_codes.codes[d];
    const float scale = f32_from_f16(load<uint16_t>(cache.k_scale(key, begin)));
    s = std::fma(static_cast<float>(sum), scale * query.as_codes.scales[begin / kKvGroup], s);
  }
  return s;
}

// The running softmax over one segment's tiles: Milakov and Gimelshein, "Online normalizer calculation for
// softmax", 2018, section 3; by tiles: Dao et al., "FlashAttention", 2022, section 3.1.
struct Segment {
  float m = -kInfinity;
  float lanes[16] = {};
};

// Steps 1, 3, 4 and 5 for the valid keys [begin, end) of one tile. acc: [head_dim].
void attend_tile(const Cache& cache, size_t begin, size_t end, const Query& query, Softcap cap,
                 Segment* segment, float* acc) {
  const size_t tile = begin / kAttentionTile * kAttentionTile;
  float p[kAttentionTile] = {};
  float m = segment->m;
  for (size_t j = begin; j < end; ++j) {
    p[j - tile] = score(cache, query, j);
    if (cap.outer > 0) p[j - tile] = softcap(p[j - tile], cap);
    m = std::max(m, p[j - tile]);
  }
  const float alpha = exp2q(segment->m - m);
  segment->m = m;
  for (size_t j = begin; j < end; ++j) p[j - tile] = exp2q(p[j - tile] - m);

  for (size_t i = 0; i < 16; ++i) {
    float& lane = segment->lanes[i];
    lane = std::fma(lane, alpha, p[i]);
    for (size_t block = 16; block < kAttentionTile; block += 16) lane = lane + p[block + i];
  }
  for (size_t d = 0; d < cache.head_dim; ++d) {
    acc[d] = acc[d] * alpha;
    for (size_t j = begin; j < end; ++j) acc[d] = std::fma(p[j - tile], cache.value(j, d), acc[d]);
  }
}

// Where a row's acc, m and l stand in a part of n_rows rows.
template <class Float>
struct PartRow {
  Float *acc, *m, *l;
};
template <class Float>
PartRow<Float> part_row(const AttentionArgs& args, size_t row, Float* part) {
  const size_t n_rows = args.n_tokens * args.n_heads;
  Float* const m = part + n_rows * args.head_dim;
  return {part + row * args.head_dim, m + row, m + n_rows + row};
}

struct KeyRange {
  size_t begin, end;
};

// The keys of a segment that token t sees.
KeyRange keys_of(const AttentionArgs& args, size_t segment, size_t t) {
  const size_t position = args.position + t;
  return {std::max(first_visible_key(position, args.window), segment * kAttentionSegment),
          std::min(position + 1, (segment + 1) * kAttentionSegment)};
}

}  // namespace

void attend_segment(const AttentionArgs& args, size_t segment, float* part) noexcept {
  const size_t n = args.head_dim;
  const Cache cache{args.cache, args.type, n};
  float* const scaled = args.scratch;
  const QuantizedRows as_codes{reinterpret_cast<int8_t*>(scaled + n), scaled + 2 * n,
                               reinterpret_cast<int16_t*>(scaled + 2 * n + (n + 31) / 32)};
  for (size_t row = 0; row < args.n_tokens * args.n_heads; ++row) {
    const size_t t = row / args.n_heads, head = row % args.n_heads;
    const KeyRange keys = keys_of(args, segment, t);
    if (keys.begin >= keys.end) continue;
    const float* const q = args.q + t * args.q_stride + head * n;
    for (size_t d = 0; d < n; ++d) scaled[d] = q[d] * args.kappa;
    if (args.type == KvType::kQ8_0) quantize_activations(scaled, 1, n, as_codes);

    const PartRow<float> out = part_row(args, row, part);
    std::fill(out.acc, out.acc + n, 0.0f);
    Segment state;
    for (size_t begin = keys.begin; begin < keys.end;) {
      const size_t end = std::min(keys.end, (begin / kAttentionTile + 1) * kAttentionTile);
      attend_tile(cache, begin, end, {scaled, as_codes}, args.softcap, &state, out.acc);
      begin = end;
    }
    *out.m = state.m;
    *out.l = fold16(state.lanes);
  }
}

// Dao et al., "Flash-Decoding for long-context inference", 2023: the keys are split, and the parts merged.
void merge_segment(const AttentionArgs& args, size_t segment, const float* part, float* total) noexcept {
  const size_t n = args.head_dim;
  for (size_t row = 0; row < args.n_tokens * args.n_heads; ++row) {
    const size_t t = row / args.n_heads, position = args.position + t;
    const KeyRange keys = keys_of(args, segment, t);
    if (keys.begin >= keys.end) continue;
    const PartRow<const float> from = part_row(args, row, part);
    const PartRow<float> to = part_row(args, row, total);
    if (segment == first_visible_key(position, args.window) / kAttentionSegment) {
      std::copy(from.acc, from.acc + n, to.acc);
      *to.m = *from.m;
      *to.l = *from.l;
    } else {
      const float m = std::max(*to.m, *from.m);
      const float alpha = exp2q(*to.m - m), beta = exp2q(*from.m - m);
      *to.l = std::fma(*to.l, alpha, *from.l * beta);
      for (size_t d = 0; d < n; ++d) to.acc[d] = std::fma(to.acc[d], alpha, from.acc[d] * beta);
      *to.m = m;
    }
    if (segment != position / kAttentionSegment) continue;
    if (args.sinks != nullptr) {
      const float s = args.sinks[row % args.n_heads] * 0x1.715476p0f, m = std::max(*to.m, s);
      const float alpha = exp2q(*to.m - m);
      *to.l = std::fma(*to.l, alpha, exp2q(s - m));
      for (size_t d = 0; d < n; ++d) to.acc[d] = to.acc[d] * alpha;
    }
    float* const out = args.out + t * args.out_stride + row % args.n_heads * n;
    const float inverse = 1 / *to.l;
    for (size_t d = 0; d < n; ++d) out[d] = to.acc[d] * inverse;
  }
}

bool store_kv(const StoreKvArgs& args) noexcept {
  const Cache cache{args.cache, args.type, args.head_dim};
  const size_t key = args.position;
  bool no_nan = true;
  for (size_t d = 0; d < args.head_dim; ++d) {
    if (args.type == KvType::kF16) {
      store(saturated_f16(args.k[d]), cache.k(key, d));
      store(saturated_f16(args.v[d]), cache.v(key, d));
    } else if (args.type == KvType::kF32) {
      store(args.k[d], cache.k(key, d));
      store(args.v[d], cache.v(key, d));
    } else if (d % kKvGroup == 0) {
      int8_t codes[2][kKvGroup];
      float scales[2];
      int16_t sums[4];
      quantize_activations(args.k + d, 1, kKvGroup, {codes[0], &scales[0], sums});
      quantize_activations(args.v + d, 1, kKvGroup, {codes[1], &scales[1], sums});
      store(f16_from_f32(scales[0]), cache.k_scale(key, d));
      store(f16_from_f32(scales[1]), cache.v_scale(key, d));
      for (size_t i = 0; i < kKvGroup; ++i) {
        store(codes[0][i], cache.k_code(key, d + i));
        store(codes[1][i], cache.v_code(key, d + i));
      }
    }
    no_nan = no_nan && !std::isnan(args.k[d]) && !std::isnan(args.v[d]);
  }
  return no_nan;
}

}  // namespace quern::scalar
