// The encoders that search, one weight after the other as formats.md 2.5 describes them. importance null: the
// plain search. Each gives the bytes of one block.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "quant/float16.h"

namespace quern::plain {

using Bytes = std::vector<uint8_t>;

struct Input {
  const float* x;
  const float* importance;
  float mean_square;  // of the row
};

inline int nearest(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value + 12582912.0f);
  return static_cast<int>(bits & 0x7fffffu) - 0x400000;
}
inline int nearest_in(float value, int low, int high) {
  return std::max(low, std::min(high, nearest(value)));
}
inline float real(int code) { return static_cast<float>(code); }

inline float first_of_largest(const float* x, int n) {
  float largest = 0;
  for (int k = 0; k < n; ++k)
    if (std::fabs(x[k]) > std::fabs(largest)) largest = x[k];
  return largest;
}

inline float squares(const float* x, int n) {
  float sum = 0;
  for (int k = 0; k < n; ++k) sum += x[k] * x[k];
  return sum;
}

// importance * sqrt(variance + x^2)
inline std::vector<float> weigh(const Input& in, int n, float variance) {
  std::vector<float> w;
  for (int k = 0; k < n; ++k) w.push_back(in.importance[k] * std::sqrt(variance + in.x[k] * in.x[k]));
  return w;
}

// code = nearest(inverse * (x - base)); scale and minimum (x ~ scale * code + minimum) by least squares.
struct Line {
  float scale = 0, minimum = 0;
  std::vector<int> code;
};
inline Line fit_line(const float* x, const float* w, int n, int top, float first, float step, int steps,
                     bool absolute) {
  Line line;
  float low = x[0], high = x[0], sum_w = 0, sum_x = 0;
  for (int k = 0; k < n; ++k) {
    if (x[k] < low) low = x[k];
    if (x[k] > high) high = x[k];
    sum_w = k == 0 ? w[0] : sum_w + w[k];
    sum_x = k == 0 ? w[0] * x[0] : sum_x + w[k] * x[k];
  }
  if (low > 0) low = 0;
  line.minimum = low;
  line.code.assign(n, 0);
  if (high <= low) return line;
  const auto error_of = [&](float scale, float minimum, const std::vector<int>& code) {
    float error = 0;
    for (int k = 0; k < n; ++k) {
      const float off = scale * real(code[k]) + minimum - x[k];
      error += w[k] * (absolute ? std::fabs(off) : off * off);
    }
    return error;
  };
  const auto codes_of = [&](float inverse) {
    std::vector<int> code;
    for (int k = 0; k < n; ++k) code.push_back(nearest_in(inverse * (x[k] - line.minimum), 0, top));
    return code;
  };
  const float inverse = real(top) / (high - low);
  line.scale = 1 / inverse;
  line.code = codes_of(inverse);
  float best = error_of(line.scale, low, line.code);
  for (int c = 0; c <= steps; ++c) {
    const std::vector<int> code = codes_of((first + step * real(c) + real(top)) / (high - line.minimum));
    float l = 0, l2 = 0, lx = 0;
    for (int k = 0; k < n; ++k) {
      l += w[k] * real(code[k]);
      l2 += w[k] * real(code[k]) * real(code[k]);
      lx += w[k] * real(code[k]) * x[k];
    }
    const float determinant = sum_w * l2 - l * l;
    if (!(determinant > 0)) continue;
    float scale = (sum_w * lx - sum_x * l) / determinant, minimum = (l2 * sum_x - l * lx) / determinant;
    if (minimum > 0) {
      minimum = 0;
      scale = lx / l2;
    }
    if (const float error = error_of(scale, minimum, code); error < best) {
      best = error;
      line.scale = scale;
      line.minimum = minimum;
      line.code = code;
    }
  }
  return line;
}
inline Line fit_weighted_line(const float* x, const float* w, int n, int top) {
  return fit_line(x, w, n, top, -0.9f, 0.05f, 36, false);
}

// code -top .. top - 1, kept with top added; 0 where nothing is to be seen.
struct Scale {
  float scale = 0;
  std::vector<int> code;
};
inline Scale fit_scale(const float* x, const float* w, int n, int top) {
  Scale found;
  found.code.assign(n, 0);
  const float largest = first_of_largest(x, n);
  if (std::fabs(largest) < 1e-15f) return found;
  float best = 0;
  for (int c = -10; c <= 9; ++c) {
    if (c == 0) continue;
    const bool first = c == -10;
    const float inverse = first ? real(-top) / largest : -(real(top) + 0.1f * real(c)) / largest;
    std::vector<int> code;
    float lx = 0, l2 = 0;
    for (int k = 0; k < n; ++k) {
      const int l = nearest_in(inverse * x[k], -top, top - 1);
      code.push_back(l + top);
      lx += w[k] * x[k] * real(l);
      l2 += w[k] * real(l) * real(l);
    }
    if (!first && !(l2 > 0 && lx * lx > best * l2)) continue;
    found.scale = l2 != 0 ? lx / l2 : 0;
    found.code = code;
    best = found.scale * lx;
  }
  return found;
}

// Q3_K: codes move one by one.
inline Scale fit_refined(const float* x) {
  Scale found;
  found.code.assign(16, 0);
  const float largest = first_of_largest(x, 16);
  if (std::fabs(largest) < 1e-15f) return found;
  float lx = 0, l2 = 0;
  std::vector<int> code;
  for (int k = 0; k < 16; ++k) {
    code.push_back(nearest_in(-4.0f / largest * x[k], -4, 3));
    lx += x[k] * x[k] * x[k] * real(code[k]);
    l2 += x[k] * x[k] * real(code[k]) * real(code[k]);
  }
  for (int pass = 0; pass < 5; ++pass) {
    for (int k = 0; k < 16; ++k) {
      const float w = x[k] * x[k];
      float other_lx = lx - w * x[k] * real(code[k]), other_l2 = l2 - w * real(code[k]) * real(code[k]);
      if (!(other_lx > 0)) continue;
      const int l = nearest_in(x[k] * other_l2 / other_lx, -4, 3);
      if (l == code[k]) continue;
      other_lx += w * x[k] * real(l);
      other_l2 += w * real(l) * real(l);
      if (!(other_l2 > 0 && other_lx * other_lx * l2 > lx * lx * other_l2)) continue;
      code[k] = l;
      lx = other_lx;
      l2 = other_l2;
    }
  }
  for (int k = 0; k < 16; ++k) found.code[k] = code[k] + 4;
  found.scale = l2 > 0 ? lx / l2 : 0;
  return found;
}

// Scales and minima of a super-block with importance. Codes are bytes.
inline Scale fit_positive(const std::vector<float>& x, const std::vector<float>& w, int top) {
  Scale found;
  const int n = static_cast<int>(x.size());
  found.code.assign(n, 0);
  const float largest = *std::max_element(x.begin(), x.end());
  if (largest < 1e-15f) return found;
  float inverse = 0, best = 0;
  for (int c = -5; c <= 4; ++c) {
    if (c == 0) continue;
    const bool first = c == -5;
    const float tried = first ? real(top) / largest : (0.1f * real(c) + real(top)) / largest;
    float error = 0;
    for (int k = 0; k < n; ++k) {
      const int l =
          first ? static_cast<uint8_t>(nearest(tried * x[k])) : std::min(top, nearest(tried * x[k]));
      const float off = x[k] - 1 / tried * real(l);
      error += w[k] * off * off;
    }
    if (first || error < best) {
      best = error;
      inverse = tried;
    }
  }
  float lx = 0, l2 = 0;
  for (int k = 0; k < n; ++k) {
    const int l = std::min(top, nearest(inverse * x[k]));
    found.code[k] = static_cast<uint8_t>(l);
    lx += w[k] * x[k] * real(l);
    l2 += w[k] * real(l) * real(l);
  }
  for (int pass = 0; pass < 5; ++pass) {
    for (int k = 0; k < n; ++k) {
      float other_lx = lx - w[k] * x[k] * real(found.code[k]);
      float other_l2 = l2 - w[k] * real(found.code[k]) * real(found.code[k]);
      if (!(other_lx > 0 && other_l2 > 0)) continue;
      const int l = std::min(top, nearest(x[k] * other_l2 / other_lx));
      if (l == found.code[k]) continue;
      other_lx += w[k] * x[k] * real(l);
      other_l2 += w[k] * real(l) * real(l);
      if (!(other_lx * other_lx * l2 > lx * lx * other_l2)) continue;
      found.code[k] = static_cast<uint8_t>(l);
      lx = other_lx;
      l2 = other_l2;
    }
  }
  found.scale = l2 > 0 ? lx / l2 : 0;
  return found;
}
// Without importance: the largest gets `top`.
inline Scale fit_to_largest(const std::vector<float>& x, int top) {
  Scale found;
  const float largest = std::max(0.0f, *std::max_element(x.begin(), x.end()));
  for (const float v : x)
    found.code.push_back(
        std::min(top, static_cast<int>(static_cast<uint8_t>(nearest(real(top) / largest * v)))));
  found.scale = largest / real(top);
  if (!(largest > 0)) std::fill(found.code.begin(), found.code.end(), 0);
  return found;
}

inline void put_f16(float value, size_t at, Bytes* out) {
  const uint16_t bits = f16_from_f32(value);
  std::memcpy(&(*out)[at], &bits, 2);
}
inline float stored(float value) { return f32_from_f16(f16_from_f32(value)); }

// Codes of scales and minima of a block: 16 of four bits, a byte for both, or 8 of six bits in 12 bytes. What
// has more bits, as a scale below 0 does, spoils its neighbours.
inline Bytes pack_scales(const std::vector<int>& scale, const std::vector<int>& minimum) {
  const auto byte = [](int value) { return static_cast<uint8_t>(value); };
  Bytes packed;
  if (scale.size() == 16) {
    for (size_t j = 0; j < 16; ++j) packed.push_back(byte(scale[j] | minimum[j] << 4));
    return packed;
  }
  for (const std::vector<int>* of : {&scale, &minimum})
    for (size_t j = 0; j < 4; ++j) packed.push_back(byte((*of)[j] | (*of)[j + 4] >> 4 << 6));
  for (size_t j = 4; j < 8; ++j) packed.push_back(byte((scale[j] & 15) | (minimum[j] & 15) << 4));
  return packed;
}
struct PackedPair {
  int scale, minimum;
};
inline PackedPair unpack_scales(const Bytes& packed, size_t j) {
  if (packed.size() == 16) return {packed[j] & 15, packed[j] >> 4};
  if (j < 4) return {packed[j] & 63, packed[j + 4] & 63};
  return {(packed[j + 4] & 15) | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4};
}

// A block of 256 whose sub-blocks of n weights have scales and minima.
struct SubBlocks {
  float d = 0, dmin = 0;
  Bytes packed;  // pack_scales()
  std::vector<int> code;
};
inline SubBlocks encode_lines(const Input& in, int n, int top, int scale_top, float first, int steps) {
  std::vector<float> w;
  const float sum = squares(in.x, 256);
  if (in.importance != nullptr) {
    w = weigh(in, 256, n == 16 ? sum / 256 : 2 * sum / 256);
  } else {
    for (int k = 0; k < 256; ++k)
      w.push_back((n == 16 ? 0 : std::sqrt(squares(in.x + k / 32 * 32, 32) / 32)) + std::fabs(in.x[k]));
  }
  std::vector<float> scales, minima, sums;
  SubBlocks out;
  for (int j = 0; j < 256; j += n) {
    const Line line = in.importance != nullptr
                          ? fit_weighted_line(in.x + j, &w[j], n, top)
                          : fit_line(in.x + j, &w[j], n, top, first, 0.1f, steps, n == 16);
    scales.push_back(line.scale);
    minima.push_back(-line.minimum);
    out.code.insert(out.code.end(), line.code.begin(), line.code.end());
    float total = 0;
    for (int k = 0; k < n; ++k) total += w[j + k];
    sums.push_back(total);
  }
  const bool plain = in.importance == nullptr;
  Scale scale = plain ? fit_to_largest(scales, scale_top) : fit_positive(scales, sums, scale_top);
  Scale minimum = plain ? fit_to_largest(minima, scale_top) : fit_positive(minima, sums, scale_top);
  if (top == 31)
    for (std::vector<int>* codes : {&scale.code, &minimum.code})
      for (int& code : *codes) code = std::min(code, scale_top);
  out.d = scale.scale;
  out.dmin = minimum.scale;
  out.packed = pack_scales(scale.code, minimum.code);
  for (int k = 0; k < 256; ++k) {
    const PackedPair multiples = unpack_scales(out.packed, static_cast<size_t>(k / n));
    const float step = stored(out.d) * real(multiples.scale);
    const float depth = stored(out.dmin) * real(multiples.minimum);
    if (step != 0) out.code[k] = nearest_in((in.x[k] + depth) / step, 0, top);
  }
  return out;
}

inline void put_pairs(const std::vector<int>& code, size_t at, Bytes* out) {
  for (int e = 0; e < 256; ++e)
    (*out)[at + static_cast<size_t>(32 * (e / 128) + e % 32)] |=
        static_cast<uint8_t>((code[e] & 3) << 2 * (e % 128 / 32));
}

inline Bytes q2_k(const Input& in) {
  Bytes out(84, 0);
  const SubBlocks found = encode_lines(in, 16, 3, 15, -0.5f, 15);
  std::copy(found.packed.begin(), found.packed.end(), out.begin());
  put_pairs(found.code, 16, &out);
  put_f16(found.d, 80, &out);
  put_f16(found.dmin, 82, &out);
  return out;
}

inline Bytes q4_or_5_k(const Input& in, int top) {
  Bytes out(top == 15 ? 144 : 176, 0);
  const SubBlocks found =
      top == 15 ? encode_lines(in, 32, 15, 63, -1.0f, 20) : encode_lines(in, 32, 31, 63, -0.5f, 15);
  put_f16(found.d, 0, &out);
  put_f16(found.dmin, 2, &out);
  std::copy(found.packed.begin(), found.packed.end(), out.begin() + 4);
  const size_t qs = top == 15 ? 16 : 48;
  for (int e = 0; e < 256; ++e) {
    out[qs + static_cast<size_t>(32 * (e / 64) + e % 32)] |=
        static_cast<uint8_t>((found.code[e] & 15) << (e % 64 < 32 ? 0 : 4));
    if (top == 31)
      out[16 + static_cast<size_t>(e % 32)] |= static_cast<uint8_t>((found.code[e] >> 4) << (e / 32));
  }
  return out;
}

inline Bytes q3_k(const Input& in) {
  Bytes out(110, 0);
  std::vector<float> scales, sums, w;
  std::vector<int> code;
  if (in.importance != nullptr) w = weigh(in, 256, 2 * squares(in.x, 256) / 256);
  for (int j = 0; j < 256; j += 16) {
    const Scale found = in.importance != nullptr ? fit_scale(in.x + j, &w[j], 16, 4) : fit_refined(in.x + j);
    scales.push_back(found.scale);
    code.insert(code.end(), found.code.begin(), found.code.end());
    float total = 0;
    for (int k = 0; in.importance != nullptr && k < 16; ++k) total += w[j + k];
    sums.push_back(total);
  }
  Scale super;
  if (in.importance != nullptr) {
    super = fit_scale(scales.data(), sums.data(), 16, 32);
  } else {
    const float largest = first_of_largest(scales.data(), 16), inverse = -32.0f / largest;
    for (const float s : scales)
      super.code.push_back(largest == 0 ? 0 : nearest_in(inverse * s, -32, 31) + 32);
    super.scale = largest == 0 ? 0 : 1 / inverse;
  }
  put_f16(super.scale, 108, &out);
  for (size_t j = 0; j < 16; ++j) {
    out[96 + j % 8] |= static_cast<uint8_t>((super.code[j] & 15) << (j < 8 ? 0 : 4));
    out[104 + j % 4] |= static_cast<uint8_t>((super.code[j] >> 4) << 2 * (j / 4));
  }
  for (int k = 0; k < 256; ++k) {
    const float step = stored(super.scale) * real(super.code[k / 16] - 32);
    if (step != 0) code[k] = nearest_in(in.x[k] / step, -4, 3) + 4;
    out[static_cast<size_t>(k % 32)] |= static_cast<uint8_t>((code[k] >> 2) << (k / 32));
  }
  put_pairs(code, 32, &out);
  return out;
}

inline Bytes q6_k(const Input& in) {
  Bytes out(210, 0);
  std::vector<float> scales;
  std::vector<int> code;
  for (int j = 0; j < 256; j += 16) {
    float w[16];
    for (int k = 0; k < 16; ++k)
      w[k] = in.importance != nullptr ? in.importance[j + k] : in.x[j + k] * in.x[j + k];
    const Scale found = fit_scale(in.x + j, w, 16, 32);
    scales.push_back(found.scale);
    code.insert(code.end(), found.code.begin(), found.code.end());
  }
  const float largest = first_of_largest(scales.data(), 16);
  if (std::fabs(largest) < 1e-15f) return out;
  const float inverse = -128.0f / largest;
  put_f16(1 / inverse, 208, &out);
  for (int k = 0; k < 256; ++k) {
    const int scale = std::min(127, nearest(inverse * scales[k / 16]));
    out[192 + static_cast<size_t>(k / 16)] = static_cast<uint8_t>(scale);
    const float step = stored(1 / inverse) * real(scale);
    if (step != 0) code[k] = nearest_in(in.x[k] / step, -32, 31) + 32;
  }
  for (int e = 0; e < 256; ++e) {
    const int n = e / 128, k = e % 128 / 32, l = e % 32;
    const int low = 64 * n + 32 * (k % 2) + l, high = 128 + 32 * n + l;
    out[static_cast<size_t>(low)] |= static_cast<uint8_t>((code[e] & 15) << (k < 2 ? 0 : 4));
    out[static_cast<size_t>(high)] |= static_cast<uint8_t>((code[e] >> 4) << (2 * k));
  }
  return out;
}

inline constexpr int kIq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
inline int nearest_iq4(float x) {
  if (x <= real(kIq4[0])) return 0;
  if (x >= real(kIq4[15])) return 15;
  int low = 0, high = 15;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (x < real(kIq4[middle]) ? high : low) = middle;
  }
  return x - real(kIq4[low]) < real(kIq4[high]) - x ? low : high;
}
inline float fit_iq4(const float* x, const float* w) {
  const float largest = first_of_largest(x, 32);
  if (std::fabs(largest) < 1e-15f) return 0;
  float scale = 0, best = 0;
  for (int c = -8; c <= 7; ++c) {
    const bool first = c == -8;
    const float inverse = first ? 1 / (-largest / -127.0f) : (real(c) - 127.0f) / largest;
    float qx = 0, q2 = 0;
    for (int k = 0; k < 32; ++k) {
      const float q = real(kIq4[nearest_iq4(inverse * x[k])]);
      qx += w[k] * q * x[k];
      q2 += w[k] * q * q;
    }
    if (!first && !(q2 > 0 && qx * qx > best * q2)) continue;
    scale = q2 > 0 ? qx / q2 : 0;
    best = scale * qx;
  }
  return scale;
}
inline std::vector<float> iq4_weights(const Input& in, int n) {
  if (in.importance != nullptr) return weigh(in, n, squares(in.x, n) * (2.0f / real(n)));
  std::vector<float> w;
  for (int k = 0; k < n; ++k) w.push_back(in.x[k] * in.x[k]);
  return w;
}
inline void put_iq4(const float* x, float scale, size_t at, Bytes* out) {
  const float inverse = scale != 0 ? 1 / scale : 0;
  for (size_t k = 0; k < 32; ++k)
    (*out)[at + k % 16] |= static_cast<uint8_t>(nearest_iq4(inverse * x[k]) << (k < 16 ? 0 : 4));
}
inline Bytes iq4_nl(const Input& in) {
  Bytes out(18, 0);
  const float scale = fit_iq4(in.x, iq4_weights(in, 32).data());
  put_f16(scale, 0, &out);
  put_iq4(in.x, scale, 2, &out);
  return out;
}
inline Bytes iq4_xs(const Input& in) {
  Bytes out(136, 0);
  const std::vector<float> w = iq4_weights(in, 256);
  std::vector<float> scales;
  for (int j = 0; j < 256; j += 32) scales.push_back(fit_iq4(in.x + j, &w[j]));
  const float d = -first_of_largest(scales.data(), 8) / 32;
  put_f16(d, 0, &out);
  for (size_t i = 0; i < 8; ++i) {
    const int l = nearest_in((d != 0 ? 1 / d : 0) * scales[i], -32, 31);
    out[2 + i / 4] |= static_cast<uint8_t>(((l + 32) >> 4) << 2 * (i % 4));
    out[4 + i / 2] |= static_cast<uint8_t>(((l + 32) & 15) << 4 * (i % 2));
    put_iq4(in.x + 32 * i, d * real(l), 8 + 16 * i, &out);
  }
  return out;
}

inline Bytes mxfp4(const Input& in) {
  Bytes out(17, 0);
  const float largest = std::fabs(first_of_largest(in.x, 32));
  if (largest > 0) out[0] = static_cast<uint8_t>(static_cast<int>(std::floor(std::log2(largest))) - 2 + 127);
  const float d = std::ldexp(1.0f, out[0] - 128);
  constexpr int kValues[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  for (size_t k = 0; k < 32; ++k) {
    int best = 0;
    for (int c = 1; c < 16; ++c)
      if (std::fabs(real(kValues[c]) * d - in.x[k]) < std::fabs(real(kValues[best]) * d - in.x[k])) best = c;
    out[1 + k % 16] |= static_cast<uint8_t>(best << (k < 16 ? 0 : 4));
  }
  return out;
}

// Blocks of 32, with importance only.
inline Bytes weighted_scale(const Input& in, int top) {
  Bytes out(top == 8 ? 18 : 22, 0);
  const Scale found = fit_scale(in.x, weigh(in, 32, in.mean_square).data(), 32, top);
  put_f16(found.scale, 0, &out);
  for (size_t e = 0; e < 32; ++e) {
    if (top == 16) out[2 + e / 8] |= static_cast<uint8_t>((found.code[e] >> 4) << (e % 8));
    out[(top == 8 ? 2 : 6) + e % 16] |= static_cast<uint8_t>((found.code[e] & 15) << (e < 16 ? 0 : 4));
  }
  return out;
}
inline Bytes weighted_line(const Input& in, int top) {
  Bytes out(top == 15 ? 20 : 24, 0);
  const Line found = fit_weighted_line(in.x, weigh(in, 32, in.mean_square).data(), 32, top);
  put_f16(found.scale, 0, &out);
  put_f16(found.minimum, 2, &out);
  for (size_t e = 0; e < 32; ++e) {
    if (top == 31) out[4 + e / 8] |= static_cast<uint8_t>((found.code[e] >> 4) << (e % 8));
    out[(top == 15 ? 4 : 8) + e % 16] |= static_cast<uint8_t>((found.code[e] & 15) << (e < 16 ? 0 : 4));
  }
  return out;
}

}  // namespace quern::plain
