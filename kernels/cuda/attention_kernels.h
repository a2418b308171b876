// The KV cache and attention: arithmetic.md "KV cache", "Attention". The cache is laid out as the CPU's
// (kernel_set.h KvHead): keys so that lanes are keys, values so that lanes are dims.
#pragma once

#include "kernels/cuda/arithmetic.h"
#include "kernels/cuda/kernel_args.h"
#include "kernels/cuda/row_kernels.h"
#include "kernels/cuda/vocabulary.h"

namespace quern::cuda {

QUERN_GPU_FN KvHead head_of(const KvPlace& cache, int kv_head) {
  return {cache.base + static_cast<uint64_t>(kv_head) * cache.head_bytes, cache.segment_stride,
          cache.n_segments};
}

QUERN_GPU_FN uint16_t saturated_f16(float x) {
  const uint32_t size = bits(x) & 0x7fffffffu, most = bits(65504.0f);
  if (size > most && size < 0x7f800000u) x = from_bits(most | (bits(x) & 0x80000000u));
  return to_f16(x);
}

// --- what is stored ---

// Where dim d of position `key` stands.
template <class T>
QUERN_GPU_FN uint8_t* key_place(const KvHead& head, KvType type, int head_dim, int key, int d) {
  return kv_keys(head, type, static_cast<size_t>(head_dim), static_cast<size_t>(key)) +
         static_cast<size_t>(d * 16 + key % 16) * sizeof(T);
}
template <class T>
QUERN_GPU_FN uint8_t* value_place(const KvHead& head, KvType type, int head_dim, int key, int d) {
  return kv_values(head, type, static_cast<size_t>(head_dim), static_cast<size_t>(key)) +
         kv_value_index(static_cast<size_t>(head_dim), static_cast<size_t>(key), static_cast<size_t>(d)) *
             sizeof(T);
}
// Q8_0: of the 32 dims that d is among. A key's block of 16, a value's of 64.
QUERN_GPU_FN uint8_t* key_group(const KvHead& head, int head_dim, int key, int d) {
  return kv_keys(head, KvType::kQ8_0, static_cast<size_t>(head_dim), static_cast<size_t>(key)) +
         static_cast<size_t>(d / 32) * kKvBlockKeys * 34;
}
QUERN_GPU_FN uint8_t* value_group(const KvHead& head, int head_dim, int key, int d) {
  return kv_values(head, KvType::kQ8_0, static_cast<size_t>(head_dim), static_cast<size_t>(key)) +
         static_cast<size_t>(d / 32) * kAttentionTile * 34;
}
QUERN_GPU_FN uint8_t* key_code(uint8_t* group, int key, int d) {
  return group + 32 + d % 32 / 4 * 64 + key % 16 * 4 + d % 4;
}
QUERN_GPU_FN uint8_t* value_code(uint8_t* group, int key, int d) {
  return group + 128 + kv_value_index(32, static_cast<size_t>(key), static_cast<size_t>(d % 32));
}

// A warp stores one head of one position. Whether a lane has met a NaN.
QUERN_GPU_FN bool store_kv(const KvHead& head, KvType type, int head_dim, int key, const float* k,
                           const float* v) {
  bool is_nan = false;
  for (int d = lane(); d < head_dim; d += 32) {
    is_nan = is_nan || k[d] != k[d] || v[d] != v[d];
    if (type == KvType::kF16) {
      store(saturated_f16(k[d]), key_place<uint16_t>(head, type, head_dim, key, d));
      store(saturated_f16(v[d]), value_place<uint16_t>(head, type, head_dim, key, d));
    } else if (type == KvType::kF32) {
      store(k[d], key_place<float>(head, type, head_dim, key, d));
      store(v[d], value_place<float>(head, type, head_dim, key, d));
    } else {  // head_dim is a multiple of 32: all lanes are here
      const QuantizedLane qk = quantize_lane(k[d]), qv = quantize_lane(v[d]);
      uint8_t *const keys = key_group(head, head_dim, key, d), *const values =
                                                                   value_group(head, head_dim, key, d);
      *key_code(keys, key, d) = static_cast<uint8_t>(qk.code);
      *value_code(values, key, d) = static_cast<uint8_t>(qv.code);
      if (lane() == 0) {
        store(to_f16(qk.scale), keys + key % 16 * 2);
        store(to_f16(qv.scale), values + key % 64 * 2);
      }
    }
  }
  return is_nan;
}

// In place, by a warp. weight: null stands for ones.
QUERN_GPU_FN void norm_head(float* x, int n, const float* weight, float eps) {
  const float r = inverse_rms(warp_squares(x, n), n, eps);
  for (int d = lane(); d < n; d += 32) x[d] = mul(mul(x[d], r), weight == nullptr ? 1.0f : weight[d]);
  sync_warp();
}

QUERN_GPU_FN void rotate_head(float* x, const float* cos_sin, int rotary_dim, bool halves) {
  const int half = rotary_dim / 2;
  for (int i = lane(); i < half; i += 32) {
    const int a = halves ? i : 2 * i, b = halves ? half + i : 2 * i + 1;
    const float c = cos_sin[a], s = cos_sin[b], x0 = x[a], x1 = x[b];
    x[a] = fma(x0, c, -mul(x1, s));
    x[b] = fma(x1, c, mul(x0, s));
  }
  sync_warp();
}

QUERN_GPU_FN void store_heads(const StoreHeadsArgs& a) {
  const int item = block_x() * (kRowThreads / 32) + thread() / 32, row = block_y();
  if (item >= a.n_heads + a.n_kv_heads) return;
  const float* const cos_sin =
      a.rope == nullptr ? nullptr : a.rope + static_cast<size_t>(row) * static_cast<size_t>(a.rotary_dim);
  const auto head_at = [&](float* x, int n_heads, int head) {
    return x + (static_cast<size_t>(row) * static_cast<size_t>(n_heads) + static_cast<size_t>(head)) *
                   static_cast<size_t>(a.head_dim);
  };
  if (item < a.n_heads) {
    float* const q = head_at(a.q, a.n_heads, item);
    if (a.q_norm != nullptr) norm_head(q, a.head_dim, a.q_norm, a.eps);
    if (cos_sin != nullptr) rotate_head(q, cos_sin, a.rotary_dim, a.halves);
    if (a.q_scale != nullptr)
      for (int d = lane(); d < a.head_dim; d += 32) q[d] = mul(q[d], a.q_scale[row]);
    return;
  }
  const int head = item - a.n_heads;
  float *const k = head_at(a.k, a.n_kv_heads, head), *const v = head_at(a.v, a.n_kv_heads, head);
  if (a.k_norm != nullptr) norm_head(k, a.head_dim, a.k_norm, a.eps);
  if (cos_sin != nullptr) rotate_head(k, cos_sin, a.rotary_dim, a.halves);
  if (a.normalise_v) norm_head(v, a.head_dim, nullptr, a.eps);
  const bool is_nan = store_kv(head_of(a.cache, head), a.type, a.head_dim, *a.position + row, k, v);
  if (is_nan) lower(a.nan, a.nan_place + static_cast<uint32_t>(row));
}

// --- attention ---

// Keys that a query sees of a segment; of a tile.
struct KeyRange {
  int begin, end;
};
QUERN_GPU_FN int first_visible(const AttendArgs& a, int position) {
  return a.window == 0 || position < a.window ? 0 : position - a.window + 1;
}
QUERN_GPU_FN KeyRange keys_at(const AttendArgs& a, int position, int segment) {
  int begin = first_visible(a, position), end = position + 1;
  const int first = segment * static_cast<int>(kAttentionSegment),
            last = first + static_cast<int>(kAttentionSegment);
  if (begin < first) begin = first;
  if (end > last) end = last;
  return {begin, end};
}
QUERN_GPU_FN KeyRange within_tile(KeyRange keys, int tile) {
  const int first = tile * static_cast<int>(kAttentionTile), last = first + static_cast<int>(kAttentionTile);
  const KeyRange range{keys.begin < first ? first : keys.begin, keys.end > last ? last : keys.end};
  return range.begin < range.end ? range : KeyRange{0, 0};
}

struct KvF32 {
  static constexpr KvType kType = KvType::kF32;
  QUERN_GPU_FN static float score(const KvHead& head, int head_dim, int key, const float* q, const uint8_t*,
                                  const float*) {
    const uint8_t* const k = key_place<float>(head, kType, head_dim, key, 0);
    float s = 0;
    for (int d = 0; d < head_dim; ++d) s = fma(q[d], load<float>(k + d * 64), s);
    return s;
  }
  QUERN_GPU_FN static float value(const KvHead& head, int head_dim, int key, int d) {
    return load<float>(value_place<float>(head, kType, head_dim, key, d));
  }
};
struct KvF16 {
  static constexpr KvType kType = KvType::kF16;
  QUERN_GPU_FN static float score(const KvHead& head, int head_dim, int key, const float* q, const uint8_t*,
                                  const float*) {
    const uint8_t* const k = key_place<uint16_t>(head, kType, head_dim, key, 0);
    float s = 0;
    for (int d = 0; d < head_dim; ++d) s = fma(q[d], from_f16(load<uint16_t>(k + d * 32)), s);
    return s;
  }
  QUERN_GPU_FN static float value(const KvHead& head, int head_dim, int key, int d) {
    return from_f16(load<uint16_t>(value_place<uint16_t>(head, kType, head_dim, key, d)));
  }
};
struct KvQ8_0 {
  static constexpr KvType kType = KvType::kQ8_0;
  // Of the query as the activation quantizer sees it.
  QUERN_GPU_FN static float score(const KvHead& head, int head_dim, int key, const float*,
                                  const uint8_t* codes, const float* scales) {
    float s = 0;
    for (int d = 0; d < head_dim; d += 32) {
      uint8_t* const group = key_group(head, head_dim, key, d);
      int sum = 0;
      QUERN_GPU_UNROLL
      for (int i = 0; i < 32; i += 4)
        sum = dot4(load<uint32_t>(key_code(group, key, i)), load<uint32_t>(codes + d + i), sum);
      s = fma(to_float(sum), mul(from_f16(load<uint16_t>(group + key % 16 * 2)), scales[d / 32]), s);
    }
    return s;
  }
  QUERN_GPU_FN static float value(const KvHead& head, int head_dim, int key, int d) {
    uint8_t* const group = value_group(head, head_dim, key, d);
    return mul(from_f16(load<uint16_t>(group + key % 64 * 2)),
               to_float(static_cast<int8_t>(*value_code(group, key, d))));
  }
};

// The running maximum and sum of a query over segments, in step with its weighted values.
struct Merged {
  float m, l;
};
struct MergeFactors {
  float of_old, of_new;
};
QUERN_GPU_FN MergeFactors merge(Merged* total, float m, float l) {
  const float most = total->m < m ? m : total->m;
  const MergeFactors f{exp2q(sub(total->m, most)), exp2q(sub(m, most))};
  total->l = fma(total->l, f.of_old, mul(l, f.of_new));
  total->m = most;
  return f;
}
QUERN_GPU_FN float merge_sink(Merged* total, float sink) {  // the factor of the values
  const float s = mul(sink, 0x1.715476p0f), most = total->m < s ? s : total->m;
  const float alpha = exp2q(sub(total->m, most));
  total->l = fma(total->l, alpha, exp2q(sub(s, most)));
  return alpha;
}

template <class Kv>
QUERN_GPU_FN void attend(const AttendArgs& a) {
  constexpr int kTile = static_cast<int>(kAttentionTile), kSegment = static_cast<int>(kAttentionSegment);
  const int start = *a.position, head_dim = a.head_dim, most = a.most_rows, kv = block_x(),
            row0 = block_y() * most;
  const int n_all = a.n_tokens * a.group_heads, n_rows = n_all - row0 < most ? n_all - row0 : most;
  const KvHead head = head_of(a.cache, kv);
  float* const q = reinterpret_cast<float*>(shared());  // [most][head_dim]
  float* const acc = q + most * head_dim;               // likewise: of this segment, of all so far
  float* const sums = acc + most * head_dim;
  float* const q_scales = sums + most * head_dim;      // [most][head_dim / 32]
  float* const p = q_scales + most * (head_dim / 32);  // [most][kTile] scores, then probabilities
  float* const lanes = p + most * kTile;               // [most][16]
  float *const m = lanes + most * 16, *const alpha = m + most;
  uint8_t* const q_codes = reinterpret_cast<uint8_t*>(alpha + most);  // [most][head_dim]

  const auto token_of = [&](int row) { return (row0 + row) / a.group_heads; };
  const auto place_of = [&](int row) {  // of a row's head in q and out
    return static_cast<size_t>(token_of(row)) * static_cast<size_t>(a.q_dim) +
           static_cast<size_t>((kv * a.group_heads + (row0 + row) % a.group_heads) * head_dim);
  };
  for (int i = thread(); i < n_rows * head_dim; i += kRowThreads)
    q[i] = mul(a.q[place_of(i / head_dim) + static_cast<size_t>(i % head_dim)], a.kappa);
  sync_block();
  if constexpr (Kv::kType == KvType::kQ8_0) {
    for (int i = thread() / 32; i < n_rows * (head_dim / 32); i += kRowThreads / 32) {
      const QuantizedLane code = quantize_lane(q[i * 32 + lane()]);
      q_codes[i * 32 + lane()] = static_cast<uint8_t>(code.code);
      if (lane() == 0) q_scales[i] = code.scale;
    }
  }

  // Segments that some row of the block sees.
  const int last_token = token_of(n_rows - 1);
  int segment = first_visible(a, start + token_of(0)) / kSegment;
  int last_segment = (start + last_token) / kSegment;
  if (a.parts != nullptr) {
    const int mine = first_visible(a, start) / kSegment + block_z();
    segment = segment > mine ? segment : mine;  // none, where the block's is not among them
    last_segment = last_segment < mine ? last_segment : mine;
  }
  Merged total[kAttendRows];
  for (; segment <= last_segment; ++segment) {
    for (int i = thread(); i < n_rows * head_dim; i += kRowThreads) acc[i] = 0;
    for (int i = thread(); i < n_rows * 16; i += kRowThreads) lanes[i] = 0;
    if (thread() < n_rows) m[thread()] = -infinity();
    const KeyRange all{keys_at(a, start + token_of(0), segment).begin,
                       keys_at(a, start + last_token, segment).end};
    sync_block();
    for (int tile = all.begin / kTile; tile * kTile < all.end; ++tile) {
      // Scores: a key and every other row a thread.
      const int key = tile * kTile + thread() % kTile;
      for (int row = thread() / kTile; row < n_rows; row += kRowThreads / kTile) {
        const KeyRange keys = within_tile(keys_at(a, start + token_of(row), segment), tile);
        if (key < keys.begin || key >= keys.end) continue;
        float s = Kv::score(head, head_dim, key, q + row * head_dim, q_codes + row * head_dim,
                            q_scales + row * (head_dim / 32));
        if (a.cap.outer > 0) s = softcap_one(s, a.cap);
        p[row * kTile + key % kTile] = s;
      }
      sync_block();
      // A row a warp: the maximum, probabilities, the lanes' sums.
      for (int row = thread() / 32; row < n_rows; row += kRowThreads / 32) {
        const KeyRange keys = within_tile(keys_at(a, start + token_of(row), segment), tile);
        if (keys.begin >= keys.end) continue;
        float* const of_row = p + row * kTile;
        float s[2], largest = -infinity();
        bool is_valid[2];
        QUERN_GPU_UNROLL
        for (int i = 0; i < 2; ++i) {
          const int at = tile * kTile + lane() + 32 * i;
          is_valid[i] = at >= keys.begin && at < keys.end;
          s[i] = is_valid[i] ? of_row[lane() + 32 * i] : 0.0f;
          if (is_valid[i]) largest = largest < s[i] ? s[i] : largest;
        }
        largest = warp_largest(largest);
        const float before = m[row], now = before < largest ? largest : before;
        const float factor = exp2q(sub(before, now));
        QUERN_GPU_UNROLL
        for (int i = 0; i < 2; ++i) of_row[lane() + 32 * i] = is_valid[i] ? exp2q(sub(s[i], now)) : 0.0f;
        sync_warp();
        if (lane() == 0) {
          m[row] = now;
          alpha[row] = factor;
        }
        if (lane() < 16) {
          float* const sum = lanes + row * 16 + lane();
          float next = fma(*sum, factor, of_row[lane()]);
          QUERN_GPU_UNROLL
          for (int b = 16; b < kTile; b += 16) next = add(next, of_row[b + lane()]);
          *sum = next;
        }
      }
      sync_block();
      // Weighted values: a dim a thread, all rows.
      KeyRange keys[kAttendRows];
      KeyRange both{(tile + 1) * kTile, 0};
      QUERN_GPU_UNROLL
      for (int row = 0; row < kAttendRows; ++row) {
        keys[row] =
            row < n_rows ? within_tile(keys_at(a, start + token_of(row), segment), tile) : KeyRange{0, 0};
        if (keys[row].begin >= keys[row].end) continue;
        if (keys[row].begin < both.begin) both.begin = keys[row].begin;
        if (keys[row].end > both.end) both.end = keys[row].end;
      }
      for (int d = thread(); d < head_dim; d += kRowThreads) {
        float sum[kAttendRows] = {};
        QUERN_GPU_UNROLL
        for (int row = 0; row < kAttendRows; ++row)
          if (keys[row].begin < keys[row].end) sum[row] = mul(acc[row * head_dim + d], alpha[row]);
        for (int j = both.begin; j < both.end; ++j) {
          const float v = Kv::value(head, head_dim, j, d);
          QUERN_GPU_UNROLL
          for (int row = 0; row < kAttendRows; ++row)
            if (j >= keys[row].begin && j < keys[row].end)
              sum[row] = fma(p[row * kTile + j % kTile], v, sum[row]);
        }
        QUERN_GPU_UNROLL
        for (int row = 0; row < kAttendRows; ++row)
          if (keys[row].begin < keys[row].end) acc[row * head_dim + d] = sum[row];
      }
      sync_block();
    }

    // The segment's part: kept for others to merge, or merged here. Every thread has its own dims of every
    // row, and the same total.
    QUERN_GPU_UNROLL
    for (int row = 0; row < kAttendRows; ++row) {
      if (row >= n_rows) break;
      const KeyRange seen = keys_at(a, start + token_of(row), segment);
      if (seen.begin >= seen.end) continue;
      const float l = fold16(lanes + row * 16);
      if (a.parts != nullptr) {
        float* const part =
            a.parts +
            ((static_cast<size_t>(kv) * static_cast<size_t>(n_all) + static_cast<size_t>(row0 + row)) *
                 static_cast<size_t>(a.n_parts) +
             static_cast<size_t>(block_z())) *
                static_cast<size_t>(head_dim + 2);
        for (int d = thread(); d < head_dim; d += kRowThreads) part[d] = acc[row * head_dim + d];
        if (thread() == 0) {
          part[head_dim] = m[row];
          part[head_dim + 1] = l;
        }
        continue;
      }
      const int position = start + token_of(row);
      if (segment == first_visible(a, position) / kSegment) {
        total[row] = {m[row], l};
        for (int d = thread(); d < head_dim; d += kRowThreads)
          sums[row * head_dim + d] = acc[row * head_dim + d];
      } else {
        const MergeFactors f = merge(&total[row], m[row], l);
        for (int d = thread(); d < head_dim; d += kRowThreads) {
          float* const sum = sums + row * head_dim + d;
          *sum = fma(*sum, f.of_old, mul(acc[row * head_dim + d], f.of_new));
        }
      }
      if (segment != position / kSegment) continue;
      float factor = 1;
      const bool has_sink = a.sinks != nullptr;
      if (has_sink)
        factor = merge_sink(&total[row], a.sinks[kv * a.group_heads + (row0 + row) % a.group_heads]);
      const float inverse = div(1.0f, total[row].l);
      for (int d = thread(); d < head_dim; d += kRowThreads) {
        float sum = sums[row * head_dim + d];
        if (has_sink) sum = mul(sum, factor);
        a.out[place_of(row) + static_cast<size_t>(d)] = mul(sum, inverse);
      }
    }
    sync_block();
  }
}

// What blocks of attend() have left of the segments of each query row. Blocks: (KV heads, query rows).
QUERN_GPU_FN void merge_parts(const AttendArgs& a) {
  constexpr int kSegment = static_cast<int>(kAttentionSegment);
  const int kv = block_x(), row = block_y(), token = row / a.group_heads, head_dim = a.head_dim;
  const int head = kv * a.group_heads + row % a.group_heads, start = *a.position;
  const int first_segment = first_visible(a, start) / kSegment;
  const int first = first_visible(a, start + token) / kSegment - first_segment;
  const int last = (start + token) / kSegment - first_segment;
  const float* const parts =
      a.parts +
      (static_cast<size_t>(kv) * static_cast<size_t>(a.n_tokens * a.group_heads) + static_cast<size_t>(row)) *
          static_cast<size_t>(a.n_parts) * static_cast<size_t>(head_dim + 2);
  for (int d = thread(); d < head_dim; d += kRowThreads) {
    const float* part = parts + static_cast<size_t>(first) * static_cast<size_t>(head_dim + 2);
    Merged total{part[head_dim], part[head_dim + 1]};
    float sum = part[d];
    for (int i = first + 1; i <= last; ++i) {
      part += head_dim + 2;
      const MergeFactors f = merge(&total, part[head_dim], part[head_dim + 1]);
      sum = fma(sum, f.of_old, mul(part[d], f.of_new));
    }
    if (a.sinks != nullptr) sum = mul(sum, merge_sink(&total, a.sinks[head]));
    a.out[static_cast<size_t>(token) * static_cast<size_t>(a.q_dim) +
          static_cast<size_t>(head * head_dim + d)] = mul(sum, div(1.0f, total.l));
  }
}

}  // namespace quern::cuda
