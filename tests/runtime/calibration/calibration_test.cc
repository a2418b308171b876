// The calibration of a whole model, and its linear algebra against plain sums in double.
#include "runtime/calibration/calibration.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <random>
#include <sstream>

#include "quant/error.h"
#include "quant/machine/stop_signal.h"
#include "runtime/calibration/calibration_state.h"
#include "runtime/calibration/layer_pass.h"
#include "runtime/calibration/linear_algebra.h"
#include "runtime/calibration/stages.h"
#include "runtime/engine.h"
#include "tests/support/models.h"
#include "tests/support/paths.h"
#include "tests/support/temp_folder.h"

namespace quern {
namespace {

std::vector<float> random_floats(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& v : values) v = normal(random);
  return values;
}

// Beyond one tile and no multiple of any.
constexpr size_t kN = 300;

std::vector<double> gram_of(ThreadPool& pool, const std::vector<float>& x, const std::vector<float>& y) {
  std::vector<double> gram(kN * kN);
  linear_algebra::add_gram(pool, x.data(), y.data(), x.size() / kN, kN, gram.data());
  return gram;
}

TEST(LinearAlgebra, GramMatricesAreSumsOfProducts) {
  ThreadPool pool(2);
  constexpr size_t kRows = 40;
  const std::vector<float> x = random_floats(kRows * kN, 1), y = random_floats(kRows * kN, 2);
  std::vector<double> gram = gram_of(pool, x, y);
  linear_algebra::add_gram(pool, x.data(), y.data(), kRows, kN, gram.data());
  for (size_t i = 0; i < kN; i += 7)
    for (size_t j = 0; j < kN; j += 11) {
      double expected = 0;
      for (size_t r = 0; r < kRows; ++r) expected += 2.0 * x[r * kN + i] * y[r * kN + j];
      EXPECT_NEAR(gram[i * kN + j], expected, 1e-4);
    }
}

TEST(LinearAlgebra, TargetsSolveTheirEquation) {
  ThreadPool pool(3);
  const std::vector<float> x = random_floats(500 * kN, 3), y = random_floats(500 * kN, 4);
  std::vector<double> h = gram_of(pool, x, x);
  const std::vector<double> d = gram_of(pool, y, x);
  for (size_t i = 0; i < kN; ++i) h[i * kN + i] += 5;
  std::vector<double> u = h;
  ASSERT_TRUE(linear_algebra::factor(pool, u.data(), kN));
  for (size_t i = 0; i < kN; i += 13)
    for (size_t j = i; j < kN; j += 17) {
      double product = 0;
      for (size_t k = j; k < kN; ++k) product += u[i * kN + k] * u[j * kN + k];
      EXPECT_NEAR(product, h[i * kN + j], 1e-9 * h[i * kN + i]);
    }
  constexpr size_t kRows = 45;
  const std::vector<float> w = random_floats(kRows * kN, 5);
  std::vector<float> target(w.size());
  linear_algebra::shift_targets(pool, w.data(), kRows, kN, d.data(), u.data(), 0.5, target.data());
  for (size_t r = 0; r < kRows; r += 9)
    for (size_t j = 0; j < kN; j += 29) {
      // (target - w) H = w D / 2, but for what targets lose as floats.
      double left = 0, right = 0, lost = 0;
      for (size_t k = 0; k < kN; ++k) {
        left += (static_cast<double>(target[r * kN + k]) - w[r * kN + k]) * h[k * kN + j];
        right += 0.5 * w[r * kN + k] * d[k * kN + j];
        lost += 0x1p-24 * std::fabs(target[r * kN + k] * h[k * kN + j]);
      }
      EXPECT_NEAR(left, right, lost);
    }
}

TEST(LinearAlgebra, WhatIsNotPositiveDefiniteIsNotFactored) {
  ThreadPool pool(1);
  std::vector<double> a(kN * kN);
  for (size_t i = 0; i < kN; ++i) a[i * kN + i] = i == 20 ? 0 : 1;
  EXPECT_FALSE(linear_algebra::factor(pool, a.data(), kN));
}

TEST(LinearAlgebra, OutputErrorsAreThoseOfEachMatrix) {
  ThreadPool pool(2);
  constexpr size_t kInputs = 70, kRows = 5;
  const std::vector<float> x = random_floats(kInputs * kN, 6), x_coded = random_floats(kInputs * kN, 7),
                           w = random_floats(kRows * kN, 8), q = random_floats(kRows * kN, 9);
  const float* const coded[] = {q.data(), w.data()};
  double errors[2], norm, expected[2] = {}, expected_norm = 0;
  linear_algebra::output_errors(pool, x.data(), x_coded.data(), kInputs, kN, w.data(), coded, kRows, errors,
                                &norm);
  for (size_t i = 0; i < kInputs; ++i)
    for (size_t r = 0; r < kRows; ++r) {
      double wanted = 0, found[2] = {};
      for (size_t k = 0; k < kN; ++k) {
        wanted += static_cast<double>(x[i * kN + k]) * w[r * kN + k];
        for (size_t c = 0; c < 2; ++c)
          found[c] += static_cast<double>(x_coded[i * kN + k]) * coded[c][r * kN + k];
      }
      expected_norm += wanted * wanted;
      for (size_t c = 0; c < 2; ++c) expected[c] += std::pow(wanted - found[c], 2);
    }
  EXPECT_NEAR(norm, expected_norm, 1e-4 * expected_norm);
  for (size_t c = 0; c < 2; ++c) EXPECT_NEAR(errors[c], expected[c], 1e-4 * expected[c]);
}

// tiny-mistral, or a file made of it, with the formats of a recipe that is q4_0 in the layers.
class CalibratedModel : public testing::Test {
 protected:
  struct Calibrated {
    CalibrationReport report;
    std::map<std::string, std::vector<uint8_t>> bytes;
  };

  static std::unique_ptr<Model> open(const std::string& type, int n_threads = 2) {
    ModelOptions options;
    options.context = Calibration::kPieceTokens;
    options.kv = KvType::kF32;
    options.n_threads = n_threads;
    return test::open_model(test::converted("tiny-mistral", type), options);
  }

  static std::map<std::string, DType> formats_of(const Model& model, DType of_layers) {
    std::map<std::string, DType> formats;
    for (const TensorView& tensor : model.gguf().tensors())
      formats[std::string(tensor.name)] =
          tensor.name.starts_with("blk.") && tensor.shape.size() == 2 ? of_layers : tensor.dtype;
    return formats;
  }

  static std::vector<int32_t> some_tokens(const Model& model, size_t n) {
    std::ifstream file(test::test_data("tiny-mistral/test.txt"));
    std::stringstream text;
    text << file.rdbuf();
    std::vector<int32_t> tokens = model.tokenizer().encode_prompt(text.str());
    tokens.resize(n);
    return tokens;
  }

  static Calibrated calibrate(Model& model, DType of_layers, size_t n_pieces = 4) {
    Calibration calibration(model, some_tokens(model, n_pieces * Calibration::kPieceTokens),
                            formats_of(model, of_layers), {});
    Calibrated calibrated;
    CalibrationCallbacks callbacks;
    callbacks.on_matrix = [&](const CalibratedMatrix& matrix, std::span<const uint8_t> rows) {
      calibrated.bytes[matrix.name].assign(rows.begin(), rows.end());
    };
    calibrated.report = calibration.run(callbacks);
    return calibrated;
  }
};

TEST_F(CalibratedModel, IsNeverWorseOnTheHeldOutTextThanImportanceAlone) {
  constexpr size_t kPieces = QUERN_SANITIZED ? 2 : 4;
  const auto model = open("f32");
  const Calibrated calibrated = calibrate(*model, DType::Q4_0, kPieces);
  EXPECT_EQ(calibrated.report.n_tokens, kPieces * Calibration::kPieceTokens);
  EXPECT_EQ(calibrated.report.n_held_out, Calibration::kPieceTokens);
  ASSERT_EQ(calibrated.report.matrices.size(), 21u);
  size_t n_calibrated = 0;
  for (const CalibratedMatrix& matrix : calibrated.report.matrices) {
    EXPECT_LE(matrix.error, matrix.importance_error) << matrix.name;
    EXPECT_GT(matrix.error, 0) << matrix.name;
    n_calibrated += matrix.encoding == MatrixEncoding::kCalibrated ? 1 : 0;
    const TensorView& view = *model->gguf().find_tensor(matrix.name);
    EXPECT_EQ(calibrated.bytes.at(matrix.name).size(),
              view.rows() * block_format(DType::Q4_0).row_bytes(view.columns()));
  }
  EXPECT_GT(n_calibrated, 15u);
  EXPECT_GT(calibrated.report.kl.value, 0);
  EXPECT_LT(calibrated.report.kl.value, 0.02);
}

TEST_F(CalibratedModel, IsTheOriginalAgainWhereverItWasStopped) {
  const auto model = open("f32");
  const auto logits = [&] {
    return test::all_logits(*model, some_tokens(*model, 24), 24, Engine::kMicroBatch);
  };
  const std::vector<float> original = logits();
  Calibration calibration(*model, some_tokens(*model, 2 * Calibration::kPieceTokens),
                          formats_of(*model, DType::Q4_0), {});
  const size_t n_calls = [&] {  // of one calibration
    size_t n = 0;
    CalibrationCallbacks callbacks;
    callbacks.stop = [&] {
      ++n;
      return false;
    };
    calibration.run(callbacks);
    return n;
  }();
  EXPECT_EQ(logits(), original);
  // In the first layer, among quantized matrices of the second, and in the last pass through a layer.
  for (const size_t stopped : {size_t{3}, n_calls / 2, n_calls - 2}) {
    if (QUERN_SANITIZED && stopped != n_calls / 2) continue;
    Calibration another(*model, some_tokens(*model, 2 * Calibration::kPieceTokens),
                        formats_of(*model, DType::Q4_0), {});
    size_t n = 0;
    CalibrationCallbacks callbacks;
    callbacks.stop = [&] { return ++n == stopped; };
    EXPECT_THROW(another.run(callbacks), Interrupted);
    EXPECT_EQ(logits(), original) << "stopped at " << stopped << " of " << n_calls;
  }
}

// Interrupted behind its first layer, and again behind its last.
TEST_F(CalibratedModel, GoesOnWithAStateAndEndsWithTheSameBytesAndReport) {
  const auto model = open("f32");
  const Calibrated whole = calibrate(*model, DType::Q4_0, 2);
  const test::TempFolder folder;
  const auto go_on = [&](size_t done_before, size_t stop_behind) {
    Calibration calibration(*model, some_tokens(*model, 2 * Calibration::kPieceTokens),
                            formats_of(*model, DType::Q4_0), {});
    CalibrationState state(folder.file("state"), calibration.inputs());
    EXPECT_EQ(state.exists(), done_before > 0);
    if (done_before > 0) state.load();
    EXPECT_EQ(state.n_layers(), done_before);
    Calibrated calibrated;
    CalibrationCallbacks callbacks;
    callbacks.on_matrix = [&](const CalibratedMatrix& matrix, std::span<const uint8_t> rows) {
      calibrated.bytes[matrix.name].assign(rows.begin(), rows.end());
    };
    callbacks.stop = [&] { return stop_behind > 0 && state.n_layers() == stop_behind; };
    if (stop_behind == 0)
      calibrated.report = calibration.run(callbacks, &state);
    else
      EXPECT_THROW(calibration.run(callbacks, &state), Interrupted);
    if (stop_behind == 0) state.remove();
    return calibrated;
  };
  go_on(0, 1);
  if (!QUERN_SANITIZED) go_on(1, 3);
  const Calibrated resumed = go_on(QUERN_SANITIZED ? 1 : 3, 0);
  EXPECT_EQ(resumed.bytes, whole.bytes);
  ASSERT_EQ(resumed.report.matrices.size(), whole.report.matrices.size());
  for (size_t i = 0; i < whole.report.matrices.size(); ++i) {
    EXPECT_EQ(resumed.report.matrices[i].name, whole.report.matrices[i].name);
    EXPECT_EQ(resumed.report.matrices[i].error, whole.report.matrices[i].error);
    EXPECT_EQ(resumed.report.matrices[i].encoding, whole.report.matrices[i].encoding);
  }
  EXPECT_EQ(resumed.report.kl.value, whole.report.kl.value);
  EXPECT_TRUE(folder.names().empty());
}

TEST_F(CalibratedModel, BytesDoNotDependOnThreads) {
  const auto one = open("f32", 1), three = open("f32", 3);
  constexpr size_t kPieces = QUERN_SANITIZED ? 2 : 3;
  EXPECT_EQ(calibrate(*one, DType::Q4_0, kPieces).bytes, calibrate(*three, DType::Q4_0, kPieces).bytes);
}

// Checkpoints of tests/data/architectures whose layers can be calibrated.
std::unique_ptr<Model> open_architecture(const std::string& name) {
  ModelOptions options;
  options.context = Calibration::kPieceTokens;
  options.kv = KvType::kF32;
  options.n_threads = 1;
  return test::open_model(test::converted_folder(test::unpacked_data("architectures") + "/" + name, "f32"),
                          options);
}

class CalibratedArchitecture : public testing::TestWithParam<const char*> {};

TEST_P(CalibratedArchitecture, MatricesOfAStageShareTheirInput) {
  const auto model = open_architecture(GetParam());
  constexpr size_t kRows = 5;
  LayerPass layers(*model);
  std::vector<float> x(kRows * layers.dim());
  layers.embed(test::random_ids(*model, kRows, 1), x);
  size_t n_staged = 0;
  std::vector<float> earlier;  // the input of the stage before
  for (const CalibrationStage& stage : require_stages(*model)) {
    std::vector<float> shared;
    for (const TensorDeclaration& tensor : model->parts().tensors()) {
      if (tensor.layer != 1 || !tensor.is_matrix() || !stage.has(tensor)) continue;
      std::vector<float> input(kRows * tensor.shape.back());
      layers.input_of(**tensor.parts[0].matrix, 1, x, input);
      if (shared.empty()) shared = input;
      EXPECT_EQ(input, shared) << tensor.name;
      ++n_staged;
    }
    EXPECT_NE(shared, earlier);
    earlier = shared;
  }
  EXPECT_EQ(n_staged, 7u);
}

// Norms behind blocks, windows, scaled embeddings, a tied output.
TEST(CalibratedGemma3, IsNeverWorseThanByImportanceAlone) {
  const auto model = open_architecture("gemma3");
  std::map<std::string, DType> formats;
  for (const TensorView& tensor : model->gguf().tensors())
    formats[std::string(tensor.name)] =
        tensor.name.starts_with("blk.") && tensor.shape.size() == 2 ? DType::Q4_0 : tensor.dtype;
  const std::vector<int32_t> ids = test::random_ids(*model, 2 * Calibration::kPieceTokens, 1);
  const CalibrationReport report = Calibration(*model, ids, formats, {}).run({});
  EXPECT_EQ(report.matrices.size(), 7 * model->hparams().n_layers);
  for (const CalibratedMatrix& matrix : report.matrices) {
    EXPECT_LE(matrix.error, matrix.importance_error) << matrix.name;
    EXPECT_GT(matrix.error, 0) << matrix.name;
  }
  EXPECT_GT(report.kl.value, 0);
}

INSTANTIATE_TEST_SUITE_P(All, CalibratedArchitecture,
                         testing::Values("ernie4_5", "exaone4", "gemma", "gemma2", "gemma3", "granite",
                                         "llama-bias", "llama-tied", "ministral3", "olmo2", "qwen2", "qwen3",
                                         "seed-oss", "smollm3"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

// Its weights lie on the steps of the format, as those of a model that was trained for it.
TEST_F(CalibratedModel, WhatAFormatHoldsExactlyIsKeptExactly) {
  const auto model = open("q4_0");
  const Calibrated calibrated = calibrate(*model, DType::Q4_0, 2);
  for (const CalibratedMatrix& matrix : calibrated.report.matrices) {
    EXPECT_EQ(matrix.encoding, MatrixEncoding::kExact) << matrix.name;
    EXPECT_EQ(matrix.relative_rms_error, 0) << matrix.name;
  }
  EXPECT_EQ(calibrated.report.kl.value, 0);
}

template <class Body>
void expect_error(ErrorCode code, const std::vector<std::string>& words, Body&& body) {
  try {
    body();
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const std::string& word : words)
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << word << ": " << error.what();
  }
}

TEST_F(CalibratedModel, NamesLayerAndTensorOfActivationsThatAreNotFinite) {
  const auto model = open("f32");
  for (const TensorDeclaration& tensor : model->parts().tensors())
    if (tensor.name == "blk.1.ffn_norm.weight") {
      const std::vector<float> huge(tensor.shape[0], 3e38f);
      *tensor.parts[0].vector = model->device().load_vector({tensor.name, DType::F32, tensor.shape,
                                                             reinterpret_cast<const uint8_t*>(huge.data()),
                                                             huge.size() * sizeof(float)});
    }
  expect_error(ErrorCode::kIntegrity, {"layer 1", "blk.1.ffn_gate.weight"},
               [&] { calibrate(*model, DType::Q4_0, 2); });
}

// Its checksums are right, and yet it is of no calibration of this model.
TEST_F(CalibratedModel, RefusesAStateThatFitsNoModel) {
  const auto model = open("f32");
  Calibration calibration(*model, some_tokens(*model, 2 * Calibration::kPieceTokens),
                          formats_of(*model, DType::Q4_0), {});
  const size_t n_floats = 2 * 2 * Calibration::kPieceTokens * model->hparams().dim;
  const test::TempFolder folder;
  const auto expect_refused = [&](size_t n_stored, const std::string& word) {
    CalibrationState state(folder.file("state"), {});
    const CalibratedMatrix matrix{"blk.0.attn_q.weight", DType::Q4_0, MatrixEncoding::kExact, 0, 0, 0};
    const std::vector<uint8_t> rows(18);
    const std::span<const uint8_t> all_rows[] = {rows};
    const std::vector<float> floats(n_stored);
    const std::span<const float> streams[] = {floats};
    state.store_layer({&matrix, 1}, all_rows, streams);
    CalibrationState again(folder.file("state"), {});
    again.load();
    expect_error(ErrorCode::kIntegrity, {"is damaged", word}, [&] { calibration.run({}, &again); });
    state.remove();
  };
  expect_refused(n_floats - 1, "shorter than the text");
  expect_refused(n_floats + 1, "longer than the text");
  expect_refused(n_floats, "other matrices than the model");
}

TEST(CalibrationState, EveryShorterOrChangedFileIsRefused) {
  const test::TempFolder folder;
  const CalibratedMatrix matrix{"m", DType::Q4_0, MatrixEncoding::kCalibrated, 1, 2, 3};
  const std::vector<uint8_t> rows(18, 7);
  const std::span<const uint8_t> all_rows[] = {rows};
  const std::vector<float> floats = {1, 2, 3};
  const std::span<const float> streams[] = {floats};
  CalibrationState(folder.file("state"), {{"--damping", "0.1"}}).store_layer({&matrix, 1}, all_rows, streams);
  const auto read = [&] {
    CalibrationState state(folder.file("state"), {{"--damping", "0.1"}});
    state.load();
    std::vector<float> found(3);
    const std::span<float> out[] = {found};
    state.read_streams(out);
    EXPECT_EQ(found, floats);
    state.read_layer(0, [&](const CalibratedMatrix& read_matrix, std::span<const uint8_t> read_rows) {
      EXPECT_EQ(read_matrix.name, "m");
      EXPECT_EQ(read_matrix.relative_rms_error, 3);
      EXPECT_TRUE(std::ranges::equal(read_rows, rows));
    });
  };
  read();
  for (const std::string name : {"state/layer-0.codes", "state/streams"}) {
    const std::string whole = test::read_file(folder.file(name));
    for (size_t i = 0; i < whole.size(); ++i) {
      folder.write(name, whole.substr(0, i));
      expect_error(ErrorCode::kIntegrity, {"is damaged"}, read);
      std::string changed = whole;
      changed[i] ^= 0x10;
      folder.write(name, changed);
      expect_error(ErrorCode::kIntegrity, {"is damaged"}, read);
    }
    folder.write(name, whole);
  }
  read();
  CalibrationState other(folder.file("state"), {{"--damping", "0.2"}, {"quern", "1"}});
  expect_error(ErrorCode::kMalformed, {"--damping was 0.1, is 0.2", "quern was not known, is 1"},
               [&] { other.load(); });
}

TEST_F(CalibratedModel, RefusesFormatsAndTextsThatItCannotUse) {
  const auto model = open("f32");
  expect_error(ErrorCode::kUsage, {"Q3_K", "Q4_0"}, [&] { calibrate(*model, DType::Q3_K); });
  expect_error(ErrorCode::kUsage, {"two pieces", "512"}, [&] { calibrate(*model, DType::Q4_0, 1); });
}

}  // namespace
}  // namespace quern
