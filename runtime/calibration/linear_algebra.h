// Products and factors of large matrices, by OpenBLAS. The only file that calls it.
//
// The library is found when it is first needed (libopenblas.so.0), so that a program that calibrates nothing
// neither needs it nor starts its threads. Every call runs on one thread; work is cut into tiles that do not
// depend on the number of threads, nor do the sums within them: on one machine the bits are the same for any
// number. Another machine's OpenBLAS may round otherwise. Matrices are row-major.
#pragma once

#include <cstddef>
#include <span>

#include "quant/parallel.h"

namespace quern::linear_algebra {

// Throws kResource where there is no OpenBLAS. Before anything else here.
void require_library();

// sum += a^T b over n_rows rows. a, b: [n_rows, n]; sum: [n, n]. Products of the rows of one call are summed
// in f32.
void add_gram(ThreadPool& pool, const float* a, const float* b, size_t n_rows, size_t n, double* sum);

// A = U U^T, U upper triangular, in place of A's upper triangle; below it nothing is read or written. False
// where A is not positive definite.
bool factor(ThreadPool& pool, double* a, size_t n);

// out[r] = rows[r] + strength * (rows[r] D) (U U^T)^-1. rows, out: [n_rows, n]; d: [n, n]; u: of factor().
void shift_targets(ThreadPool& pool, const float* rows, size_t n_rows, size_t n, const double* d,
                   const double* u, double strength, float* out);

// Sums of squares over all of `n_inputs` inputs of x W^T - x' Q^T for each Q. x, x_coded: [n_inputs, n]; w
// and each of coded: [n_rows, n]; errors: as many as coded. *norm: of x W^T.
void output_errors(ThreadPool& pool, const float* x, const float* x_coded, size_t n_inputs, size_t n,
                   const float* w, std::span<const float* const> coded, size_t n_rows,
                   std::span<double> errors, double* norm);

}  // namespace quern::linear_algebra
