// Softcap (arithmetic.md) on a register of floats. L: its lanes (kernels/avx2/float_lanes.h).
//
// Everything is anonymous: each file that is compiled for an instruction set has its own copy, so that the
// linker can never pick such a copy for code that runs on any CPU.
#pragma once

#include "kernels/exp2q_lanes.h"
#include "kernels/kernel_set.h"

namespace quern {
namespace {

template <class L>
QUERN_INLINE typename L::Floats softcap_lanes(typename L::Floats x, Softcap cap) {
  const auto one = L::set1(1.0f);
  const auto e = exp2q_below_126<L>(L::mul(L::abs(x), L::set1(-cap.inner)));
  return L::with_sign_of(x, L::mul(L::set1(cap.outer), L::div(L::sub(one, e), L::add(one, e))));
}

}  // namespace
}  // namespace quern
