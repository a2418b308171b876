// A KV cache of one head for tests of kernel sets, and its elements read as kernel_set.h draws them.
#pragma once

#include <cstring>
#include <vector>

#include "kernels/device.h"
#include "quant/float16.h"
#include "tests/kernels/kernel_test.h"

namespace quern::test {

inline constexpr KvType kKvTypes[] = {KvType::kF16, KvType::kF32, KvType::kQ8_0};
inline std::string kv_name(KvType type) {
  return type == KvType::kF16 ? "f16" : type == KvType::kF32 ? "f32" : "q8_0";
}
inline bool can_hold(KvType type, size_t head_dim) {
  return type != KvType::kQ8_0 || head_dim % kKvGroup == 0;
}

// A cache of layers that are all the same and keep everything.
inline KvShape same_layers(size_t n_layers, size_t n_kv_heads, size_t head_dim, size_t capacity,
                           KvType type) {
  return {std::vector<KvLayer>(n_layers, {n_kv_heads, head_dim, 0}), capacity, type};
}

// Zeroed. Between its segments lies something that is no number, as between a head's in a real cache.
class KvMemory {
 public:
  static constexpr size_t kGap = 4096;

  KvMemory(size_t n_keys, size_t head_dim, KvType type)
      : head_dim_(head_dim),
        type_(type),
        segment_keys_(n_keys < kAttentionSegment ? round_up(n_keys, kAttentionTile) : kAttentionSegment),
        n_segments_(round_up(n_keys, segment_keys_) / segment_keys_),
        bytes_(n_segments_ * stride(), 0xff) {
    for (size_t g = 0; g < n_segments_; ++g) std::memset(bytes_.data() + g * stride(), 0, segment_bytes());
    bytes_.resize(bytes_.size() - kGap);  // nothing may be read behind the last one
  }

  KvHead head() { return {bytes_.data(), stride(), n_segments_}; }
  size_t head_dim() const { return head_dim_; }
  KvType type() const { return type_; }
  size_t capacity() const { return n_segments_ * segment_keys_; }
  const std::vector<uint8_t>& bytes() const { return bytes_; }

  bool store(const KernelSet& set, size_t key, const std::vector<float>& k, const std::vector<float>& v) {
    return set.store_kv({k.data(), v.data(), head_dim_, key, type_, head()});
  }

  float k(size_t key, size_t d) const {
    const uint8_t* block = tile(key) + key % 64 / 16 * 16 * row_bytes();
    if (type_ != KvType::kQ8_0) return element(block, d * 16 + key % 16);
    const uint8_t* panel = block + d / 32 * 544;
    const auto code = static_cast<int8_t>(panel[32 + d % 32 / 4 * 64 + key % 16 * 4 + d % 4]);
    return f16(panel, key % 16) * static_cast<float>(code);
  }
  float v(size_t key, size_t d) const {
    const uint8_t* values = tile(key) + 64 * row_bytes();
    if (type_ != KvType::kQ8_0) {
      const size_t width = d / 16 == head_dim_ / 16 ? head_dim_ % 16 : 16;
      return element(values, d / 16 * 16 * 64 + key % 64 * width + d % 16);
    }
    const uint8_t* group = values + d / 32 * (64 * 34);
    const auto code = static_cast<int8_t>(group[128 + d % 32 / 16 * (64 * 16) + key % 64 * 16 + d % 16]);
    return f16(group, key % 64) * static_cast<float>(code);
  }

 private:
  static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
  size_t row_bytes() const {
    return type_ == KvType::kQ8_0 ? head_dim_ / 32 * 34 : head_dim_ * (type_ == KvType::kF16 ? 2 : 4);
  }
  size_t segment_bytes() const { return 2 * segment_keys_ * row_bytes(); }
  size_t stride() const { return segment_bytes() + kGap; }
  // The keys and values of 64 positions.
  const uint8_t* tile(size_t key) const {
    return bytes_.data() + key / kAttentionSegment * stride() +
           key % kAttentionSegment / 64 * 128 * row_bytes();
  }
  static float f16(const uint8_t* p, size_t i) {
    uint16_t bits;
    std::memcpy(&bits, p + 2 * i, sizeof bits);
    return f32_from_f16(bits);
  }
  float element(const uint8_t* p, size_t i) const {
    if (type_ == KvType::kF16) return f16(p, i);
    float value;
    std::memcpy(&value, p + 4 * i, sizeof value);
    return value;
  }

  size_t head_dim_;
  KvType type_;
  size_t segment_keys_, n_segments_;
  std::vector<uint8_t> bytes_;
};

inline float kappa_of(size_t head_dim) {
  return static_cast<float>(0x1.71547652b82fep0 / std::sqrt(static_cast<double>(head_dim)));
}

// Attention of q: [n_tokens, n_heads, head_dim], the first token at `position`.
inline std::vector<float> attend(const KernelSet& set, KvMemory& cache, const std::vector<float>& q,
                                 size_t n_heads, size_t position, size_t window) {
  const size_t row = n_heads * cache.head_dim(), n_tokens = q.size() / row, n_rows = n_tokens * n_heads;
  constexpr float kCanary = 12345.0f, kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr size_t kCanaries = 16, kGap = 3;  // rows of queries and results lie apart in a model's buffers
  std::vector<float> spread(n_tokens * (row + kGap), kNan), out(n_tokens * (row + kGap), kCanary);
  for (size_t t = 0; t < n_tokens; ++t)
    std::copy_n(q.begin() + t * row, row, spread.begin() + t * (row + kGap));
  // Scratch and parts are the caller's: what they hold must not matter.
  const size_t scratch_floats = attention_scratch_floats(n_rows, cache.head_dim());
  const size_t part_floats = attention_part_floats(n_rows, cache.head_dim());
  std::vector<float> scratch(scratch_floats + 16 + kCanaries, kNan);
  const size_t misaligned = reinterpret_cast<uintptr_t>(scratch.data()) % 64 / 4;
  const size_t begin = misaligned == 0 ? 0 : 16 - misaligned;
  std::vector<float> part(part_floats + kCanaries, kNan), total(part_floats + kCanaries, kNan);
  for (std::vector<float>* memory : {&part, &total})
    std::fill_n(memory->end() - kCanaries, kCanaries, kCanary);
  std::fill_n(scratch.begin() + begin + scratch_floats, kCanaries, kCanary);

  const AttentionArgs args{
      spread.data(),          row + kGap,   n_tokens,  n_heads, cache.head_dim(),
      cache.type(),           cache.head(), position,  window,  kappa_of(cache.head_dim()),
      scratch.data() + begin, out.data(),   row + kGap};
  const size_t last = (position + n_tokens - 1) / kAttentionSegment;
  for (size_t g = first_visible_key(position, window) / kAttentionSegment; g <= last; ++g) {
    set.attend_segment(args, g, part.data());
    set.merge_segment(args, g, part.data(), total.data());
  }
  for (size_t i = 0; i < kCanaries; ++i) {
    EXPECT_EQ(scratch[begin + scratch_floats + i], kCanary) << "scratch is too small";
    EXPECT_EQ(part[part_floats + i], kCanary);
    EXPECT_EQ(total[part_floats + i], kCanary);
  }
  std::vector<float> packed;
  for (size_t t = 0; t < n_tokens; ++t) {
    const auto begin_of_row = out.begin() + t * (row + kGap);
    packed.insert(packed.end(), begin_of_row, begin_of_row + row);
    for (size_t i = 0; i < kGap; ++i) EXPECT_EQ(begin_of_row[row + i], kCanary);
  }
  return packed;
}

}  // namespace quern::test
