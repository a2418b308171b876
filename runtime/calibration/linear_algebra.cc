#include "runtime/calibration/linear_algebra.h"

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <utility>
#include <vector>

#include "quant/error.h"

namespace quern::linear_algebra {
namespace {

// CBLAS's numbers (Basic Linear Algebra Subprograms Technical Forum Standard, 2001, appendix B).
enum Order { kRowMajor = 101 };
enum Transpose { kNoTrans = 111, kTrans = 112 };
enum Triangle { kUpper = 121 };
enum Diagonal { kNonUnit = 131 };
enum Side { kRight = 142 };

struct OpenBlas {
  void (*set_num_threads)(int);
  void (*sgemm)(Order, Transpose, Transpose, int m, int n, int k, float alpha, const float* a, int lda,
                const float* b, int ldb, float beta, float* c, int ldc);
  void (*dgemm)(Order, Transpose, Transpose, int m, int n, int k, double alpha, const double* a, int lda,
                const double* b, int ldb, double beta, double* c, int ldc);
  void (*dtrsm)(Order, Side, Triangle, Transpose, Diagonal, int m, int n, double alpha, const double* a,
                int lda, double* b, int ldb);
};

OpenBlas load_library() {
  constexpr const char* kName = "libopenblas.so.0";
  // Read when the library starts its threads; ours are used.
  setenv("OPENBLAS_NUM_THREADS", "1", /*overwrite=*/1);
  void* const library = dlopen(kName, RTLD_NOW | RTLD_LOCAL);  // for as long as the program runs
  if (library == nullptr)
    fail(ErrorCode::kResource,
         "{} was not found, which calibrating needs: install OpenBLAS (on Debian the package libopenblas0), "
         "or "
         "convert without --calibrate",
         kName);
  OpenBlas blas{};
  const auto find = [&](const char* name, auto* function) {
    void* const symbol = dlsym(library, name);
    if (symbol == nullptr)
      fail(ErrorCode::kResource, "{} lacks {}: it is not OpenBLAS as expected", kName, name);
    *function = reinterpret_cast<std::remove_pointer_t<decltype(function)>>(symbol);
  };
  find("openblas_set_num_threads", &blas.set_num_threads);
  find("cblas_sgemm", &blas.sgemm);
  find("cblas_dgemm", &blas.dgemm);
  find("cblas_dtrsm", &blas.dtrsm);
  blas.set_num_threads(1);
  return blas;
}

const OpenBlas& openblas() {
  static const OpenBlas blas = load_library();
  return blas;
}

constexpr size_t kTile = 256;        // rows and columns of a tile of a sum
constexpr size_t kFactorBlock = 96;  // columns factored at once
constexpr size_t kRowTile = 32;      // rows of a matrix whose targets are computed at once
constexpr size_t kInputTile = 64;

int as_int(size_t n) { return static_cast<int>(n); }

struct Tile {
  size_t row, column;
};

// U of a small block, in place of its upper triangle.
bool factor_block(double* a, size_t n, size_t stride) {
  for (size_t j = n; j-- > 0;) {
    for (size_t i = 0; i <= j; ++i) {
      double sum = a[i * stride + j];
      for (size_t k = j + 1; k < n; ++k) sum -= a[i * stride + k] * a[j * stride + k];
      a[i * stride + j] = sum;
    }
    const double square = a[j * stride + j];
    if (!(square > 0) || !std::isfinite(square)) return false;
    const double root = std::sqrt(square);
    for (size_t i = 0; i <= j; ++i) a[i * stride + j] /= root;
  }
  return true;
}

}  // namespace

void require_library() { openblas(); }

void add_gram(ThreadPool& pool, const float* a, const float* b, size_t n_rows, size_t n, double* sum) {
  const OpenBlas& blas = openblas();
  std::vector<Tile> tiles;
  for (size_t row = 0; row < n; row += kTile)
    for (size_t column = 0; column < n; column += kTile) tiles.push_back({row, column});
  std::vector<float> memory(static_cast<size_t>(pool.size()) * kTile * kTile);
  pool.parallel_for(tiles.size(), 1, [&](int thread, size_t begin, size_t) noexcept {
    const auto [row, column] = tiles[begin];
    const size_t height = std::min(kTile, n - row), width = std::min(kTile, n - column);
    float* const product = &memory[static_cast<size_t>(thread) * kTile * kTile];
    blas.sgemm(kRowMajor, kTrans, kNoTrans, as_int(height), as_int(width), as_int(n_rows), 1, a + row,
               as_int(n), b + column, as_int(n), 0, product, as_int(width));
    for (size_t i = 0; i < height; ++i)
      for (size_t j = 0; j < width; ++j) sum[(row + i) * n + column + j] += product[i * width + j];
  });
}

bool factor(ThreadPool& pool, double* a, size_t n) {
  const OpenBlas& blas = openblas();
  for (size_t end = n; end > 0;) {
    const size_t begin = end - std::min(end, (end - 1) % kFactorBlock + 1), width = end - begin;
    double* const corner = a + begin * n + begin;
    if (!factor_block(corner, width, n)) return false;
    // The columns above: A U^-T, and what they take from the tiles to their left.
    pool.parallel_for(begin, kTile, [&](int, size_t first, size_t last) noexcept {
      blas.dtrsm(kRowMajor, kRight, kUpper, kTrans, kNonUnit, as_int(last - first), as_int(width), 1, corner,
                 as_int(n), a + first * n + begin, as_int(n));
    });
    std::vector<Tile> tiles;
    for (size_t row = 0; row < begin; row += kTile)
      for (size_t column = row; column < begin; column += kTile) tiles.push_back({row, column});
    pool.parallel_for(tiles.size(), 1, [&](int, size_t first, size_t) noexcept {
      const auto [row, column] = tiles[first];
      blas.dgemm(kRowMajor, kNoTrans, kTrans, as_int(std::min(kTile, begin - row)),
                 as_int(std::min(kTile, begin - column)), as_int(width), -1, a + row * n + begin, as_int(n),
                 a + column * n + begin, as_int(n), 1, a + row * n + column, as_int(n));
    });
    end = begin;
  }
  return true;
}

void shift_targets(ThreadPool& pool, const float* rows, size_t n_rows, size_t n, const double* d,
                   const double* u, double strength, float* out) {
  const OpenBlas& blas = openblas();
  const size_t room = 2 * kRowTile * n;
  std::vector<double> memory(static_cast<size_t>(pool.size()) * room);
  pool.parallel_for(n_rows, kRowTile, [&](int thread, size_t begin, size_t end) noexcept {
    const size_t count = end - begin;
    double* const wide = &memory[static_cast<size_t>(thread) * room];
    double* const shift = wide + kRowTile * n;
    std::copy(rows + begin * n, rows + end * n, wide);
    blas.dgemm(kRowMajor, kNoTrans, kNoTrans, as_int(count), as_int(n), as_int(n), 1, wide, as_int(n), d,
               as_int(n), 0, shift, as_int(n));
    for (const Transpose transpose : {kTrans, kNoTrans})
      blas.dtrsm(kRowMajor, kRight, kUpper, transpose, kNonUnit, as_int(count), as_int(n), 1, u, as_int(n),
                 shift, as_int(n));
    for (size_t i = 0; i < count * n; ++i)
      out[begin * n + i] = static_cast<float>(wide[i] + strength * shift[i]);
  });
}

void output_errors(ThreadPool& pool, const float* x, const float* x_coded, size_t n_inputs, size_t n,
                   const float* w, std::span<const float* const> coded, size_t n_rows,
                   std::span<double> errors, double* norm) {
  QUERN_CHECK(errors.size() == coded.size());
  const OpenBlas& blas = openblas();
  const size_t n_tiles = (n_inputs + kInputTile - 1) / kInputTile, n_sums = coded.size() + 1;
  const size_t room = 2 * kInputTile * n_rows;
  std::vector<float> memory(static_cast<size_t>(pool.size()) * room);
  std::vector<double> sums(n_tiles * n_sums);  // of the tiles, added in their order
  pool.parallel_for(n_inputs, kInputTile, [&](int thread, size_t begin, size_t end) noexcept {
    const size_t count = end - begin;
    float* const wanted = &memory[static_cast<size_t>(thread) * room];
    float* const found = wanted + kInputTile * n_rows;
    double* const sum = &sums[begin / kInputTile * n_sums];
    const auto multiply = [&](const float* inputs, const float* matrix, float* y) {
      blas.sgemm(kRowMajor, kNoTrans, kTrans, as_int(count), as_int(n_rows), as_int(n), 1, inputs + begin * n,
                 as_int(n), matrix, as_int(n), 0, y, as_int(n_rows));
    };
    multiply(x, w, wanted);
    for (size_t i = 0; i < count * n_rows; ++i) sum[0] += static_cast<double>(wanted[i]) * wanted[i];
    for (size_t c = 0; c < coded.size(); ++c) {
      multiply(x_coded, coded[c], found);
      for (size_t i = 0; i < count * n_rows; ++i) {
        const double off = static_cast<double>(wanted[i]) - found[i];
        sum[1 + c] += off * off;
      }
    }
  });
  *norm = 0;
  std::fill(errors.begin(), errors.end(), 0.0);
  for (size_t t = 0; t < n_tiles; ++t) {
    *norm += sums[t * n_sums];
    for (size_t c = 0; c < coded.size(); ++c) errors[c] += sums[t * n_sums + 1 + c];
  }
}

}  // namespace quern::linear_algebra
