// exp2q (arithmetic.md) on a register of floats. L: its lanes (kernels/avx2/float_lanes.h).
//
// Everything is anonymous: each file that is compiled for an instruction set has its own copy, so that the
// linker can never pick such a copy for code that runs on any CPU.
#pragma once

#include "kernels/compiler.h"

namespace quern {
namespace {

// Where every x is at most 126 or NaN.
template <class L>
QUERN_INLINE typename L::Floats exp2q_below_126(typename L::Floats x) {
  const auto magic = L::set1(12583039.0f);  // 1.5 * 2^23 + 127
  const auto t = L::add(x, magic);
  const auto r = L::sub(x, L::sub(t, magic));
  auto p = L::set1(0x1.44138ap-13f);
  p = L::fma(p, r, L::set1(0x1.5f0890p-10f));
  p = L::fma(p, r, L::set1(0x1.3b2a54p-7f));
  p = L::fma(p, r, L::set1(0x1.c6af6cp-5f));
  p = L::fma(p, r, L::set1(0x1.ebfbe0p-3f));
  p = L::fma(p, r, L::set1(0x1.62e430p-1f));
  p = L::fma(p, r, L::set1(1.0f));
  return L::zero_where_less(x, L::set1(-100.0f), L::mul(p, L::to_exponents(t)));
}

}  // namespace
}  // namespace quern
