#include "kernels/math_f64.h"

#include <cmath>
#include <cstdint>

// std::fma, rint, frexp and ldexp are exact (one rounding, or none), so their bits are the same everywhere.

namespace quern {

namespace {

constexpr double kLn2 = 0x1.62e42fefa39efp-1;

// 1 / n! rounded once: n! is exact in f64 up to 18!.
struct InverseFactorials {
  double of[19];
};
constexpr InverseFactorials inverse_factorials() {
  InverseFactorials table{};
  double factorial = 1;
  for (int n = 0; n < 19; ++n) {
    if (n > 0) factorial *= n;
    table.of[n] = 1 / factorial;
  }
  return table;
}
constexpr InverseFactorials kInverse = inverse_factorials();

// sum over n = first, first + 2 .. last of (+-1/n!) z^((n - first) / 2), signs alternating from +.
double alternating_series(double z, int first, int last) {
  const auto coefficient = [first](int n) {
    return ((n - first) / 2) % 2 == 0 ? kInverse.of[n] : -kInverse.of[n];
  };
  double sum = coefficient(last);
  for (int n = last - 2; n >= first; n -= 2) sum = std::fma(sum, z, coefficient(n));
  return sum;
}

}  // namespace

double powi(double base, unsigned exponent) noexcept {
  double result = 1;
  for (double square = base; exponent != 0; exponent >>= 1, square *= square)
    if (exponent & 1) result *= square;
  return result;
}

double root(double value, unsigned degree) noexcept {
  double low = 1, high = value;  // powi(low) <= value; powi(high) > value, or nothing is above it
  if (powi(high, degree) <= value) return high;
  // powi is monotone, since every rounded product of it is; so there is one border, between neighbours.
  for (;;) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) return low;
    (powi(middle, degree) <= value ? low : high) = middle;
  }
}

void sincos(double angle, double* sine, double* cosine) noexcept {
  // pi/2 in two parts (Cody and Waite, "Software Manual for the Elementary Functions", 1980, chapter 8).
  const double q = std::rint(angle * 0x1.45f306dc9c883p-1);
  double r = std::fma(-q, 0x1.921fb54442d18p0, angle);
  r = std::fma(-q, 0x1.1a62633145c07p-54, r);
  const double z = r * r;
  const double s = r * alternating_series(z, 1, 17);
  const double c = alternating_series(z, 0, 18);
  switch (static_cast<int64_t>(q) & 3) {
    case 0:
      *sine = s, *cosine = c;
      break;
    case 1:
      *sine = c, *cosine = -s;
      break;
    case 2:
      *sine = -s, *cosine = -c;
      break;
    default:
      *sine = -c, *cosine = s;
      break;
  }
}

double ln(double x) noexcept {
  int e;
  double m = std::frexp(x, &e);  // [1/2, 1)
  if (m < 0x1.6a09e667f3bcdp-1) {
    m *= 2;
    --e;
  }
  const double t = (m - 1) / (m + 1);
  const double z = t * t;
  double p = 1.0 / 25;
  for (int k = 23; k >= 1; k -= 2) p = std::fma(p, z, 1.0 / k);
  return std::fma(e, kLn2, 2 * t * p);
}

double exp2d(double x) noexcept {
  if (x < -1000) return 0;
  if (!(x < 1100)) return x + HUGE_VAL;  // overflow, or NaN
  const double n = std::rint(x);
  const double r = (x - n) * kLn2;
  double p = kInverse.of[14];
  for (int i = 13; i >= 0; --i) p = std::fma(p, r, kInverse.of[i]);
  return std::ldexp(p, static_cast<int>(n));
}

}  // namespace quern
