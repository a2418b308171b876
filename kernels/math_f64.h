// f64 functions with fixed bits on every CPU (arithmetic.md "f64 functions"): no libm in a result.
// Not for inner loops. Pure, thread-safe.
#pragma once

namespace quern {

double powi(double base, unsigned exponent) noexcept;  // base^exponent, base > 0
double root(double value,
            unsigned degree) noexcept;  // the largest double whose powi(., degree) <= value; value >= 1
void sincos(double angle, double* sine, double* cosine) noexcept;  // |angle| < 2^30
double ln(double x) noexcept;                                      // x > 0, finite, normal
double exp2d(double x) noexcept;                                   // x <= 0 in practice; 0 below -1000

}  // namespace quern
