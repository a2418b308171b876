// The promise of exactness, on whole models: the same bits for every instruction set, number of threads and
// cutting into batches.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "convert/convert.h"
#include "kernels/dispatch.h"
#include "quant/recipe.h"
#include "tests/support/checkpoints.h"
#include "tests/support/models.h"
#include "tests/support/temp_folder.h"

namespace quern {
namespace {

struct ExactCase {
  std::string model, type;
};

class Exactness : public testing::TestWithParam<ExactCase> {
 protected:
  // Long enough to cross attention tiles (64 keys) and random-window's window of 16.
  std::vector<int32_t> ids(size_t n, uint32_t vocab) const {
    std::mt19937 random(7);
    std::vector<int32_t> out(n);
    for (int32_t& id : out) id = static_cast<int32_t>(random() % vocab);
    return out;
  }

  static void expect_same_bits(const std::vector<float>& a, const std::vector<float>& b,
                               const std::string& what) {
    ASSERT_EQ(a.size(), b.size()) << what;
    EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0) << what;
  }
};

TEST_P(Exactness, HoldsForInstructionSetsThreadsAndBatches) {
  const std::string path = test::converted(GetParam().model, GetParam().type);
  for (const KvType kv : {KvType::kF16, KvType::kF32, KvType::kQ8_0}) {
    // The format of weights does not meet that of the cache: one is enough. stories260k's heads are too
    // small.
    if (kv == KvType::kQ8_0 && (GetParam().type != "q8_0" || GetParam().model == "stories260k")) continue;
    ModelOptions options;
    options.kv = kv;
    options.isa = "scalar";
    options.n_threads = 1;
    const auto scalar = test::open_model(path, options);
    const std::vector<int32_t> tokens = ids(90, scalar->hparams().vocab_size);
    const std::vector<float> reference = test::all_logits(*scalar, tokens, tokens.size(), 512);

    for (const KernelSetRow& row : kernel_sets()) {
      if (!row.supported(cpu_features())) continue;
      options.isa = row.set->name;
      for (const int threads : {1, 3}) {
        if (threads == 1 && (QUERN_SANITIZED || options.isa == "scalar")) continue;
        options.n_threads = threads;
        const auto model = test::open_model(path, options);
        const std::string name = options.isa + ", threads " + std::to_string(threads);
        expect_same_bits(test::all_logits(*model, tokens, tokens.size(), 512), reference,
                         name + ", one batch");
        expect_same_bits(test::all_logits(*model, tokens, 1, 512), reference, name + ", single steps");
        if (options.isa == "scalar") continue;
        expect_same_bits(test::all_logits(*model, tokens, 7, 512), reference, name + ", pieces of 7");
        expect_same_bits(test::all_logits(*model, tokens, tokens.size(), 33), reference,
                         name + ", micro-batches of 33");
      }
    }
  }
}

TEST_P(Exactness, HoldsForFilesOfPanels) {
  const std::string standard = test::converted(GetParam().model, GetParam().type);
  const std::string panels = test::converted(GetParam().model, GetParam().type, TensorLayout::kPanels);
  ModelOptions options;
  options.n_threads = 2;
  for (const KernelSetRow& row : kernel_sets()) {
    if (!row.supported(cpu_features())) continue;
    options.isa = row.set->name;
    options.allow_mmap = true;
    const auto reference = test::open_model(standard, options);
    EXPECT_EQ(reference->mapped_weights().empty(), options.isa != "scalar");
    const std::vector<int32_t> tokens = ids(20, reference->hparams().vocab_size);
    const std::vector<float> expected = test::all_logits(*reference, tokens, tokens.size(), 512);
    for (const bool allow_mmap : {true, false}) {
      options.allow_mmap = allow_mmap;
      const auto model = test::open_model(panels, options);
      const std::span<const uint8_t> weights = model->mapped_weights();
      EXPECT_EQ(weights.empty(), !allow_mmap || options.isa == "scalar");
      const uint8_t *const first = weights.data(), *const last = first + weights.size();
      for (const TensorView& tensor : model->gguf().tensors()) {
        const bool is_inside = tensor.data >= first && tensor.data + tensor.n_bytes <= last;
        if (tensor.name == "token_embd.weight" && model->gguf().find_tensor("output.weight") != nullptr) {
          EXPECT_FALSE(is_inside);
        } else if (tensor.name == "blk.0.ffn_down.weight") {
          EXPECT_EQ(is_inside, !weights.empty());
        }
      }
      EXPECT_EQ(model->weight_bytes(), reference->weight_bytes());
      EXPECT_EQ(model->bytes_per_token(), reference->bytes_per_token());
      expect_same_bits(test::all_logits(*model, tokens, tokens.size(), 512), expected, options.isa);
      expect_same_bits(test::all_logits(*model, tokens, 1, 512), expected, options.isa + ", single steps");
    }
  }
}

std::vector<ExactCase> exact_cases() {
  std::vector<ExactCase> cases;
  for (const std::string& model : test::bundled_models())
    for (const Recipe& recipe :
         recipes())  // the smaller and larger mixes hold the formats of the middle ones
      if (!recipe.name.ends_with("_k_s") && !recipe.name.ends_with("_k_l") &&
          (!QUERN_SANITIZED || model == "stories260k" || recipe.name == "q4_0" || recipe.name == "q8_0"))
        cases.push_back({model, std::string(recipe.name)});
  return cases;
}

std::string case_name(const testing::TestParamInfo<ExactCase>& test) {
  std::string name = test.param.model + "_" + test.param.type;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Models, Exactness, testing::ValuesIn(exact_cases()), case_name);

std::vector<int32_t> some_tokens(size_t n, size_t step) {
  std::vector<int32_t> tokens(n);
  for (size_t i = 0; i < n; ++i) tokens[i] = static_cast<int32_t>(3 + i * step % 1000);
  return tokens;
}

class ExactnessAcrossSegments : public testing::TestWithParam<KvType> {
 protected:
  std::unique_ptr<Model> open() const {
    ModelOptions options;
    options.context = 700;
    options.kv = GetParam();
    return test::open_model(test::converted("tiny-mistral", "q8_0"), options);
  }
};

std::string kv_name(const testing::TestParamInfo<KvType>& kv) {
  return kv.param == KvType::kF16 ? "f16" : kv.param == KvType::kF32 ? "f32" : "q8_0";
}

INSTANTIATE_TEST_SUITE_P(KvTypes, ExactnessAcrossSegments,
                         testing::Values(KvType::kF16, KvType::kF32, KvType::kQ8_0), kv_name);

// Segments are 512 keys: a prompt that reaches into the second.
TEST_P(ExactnessAcrossSegments, LongPromptEqualsSingleSteps) {
  const auto model = open();
  const std::vector<int32_t> tokens = some_tokens(600, 37);
  const std::vector<float> whole = test::all_logits(*model, tokens, tokens.size(), 512);
  const std::vector<float> steps = test::all_logits(*model, tokens, 1, 512);
  ASSERT_EQ(whole.size(), steps.size());
  EXPECT_EQ(std::memcmp(whole.data(), steps.data(), whole.size() * sizeof(float)), 0);
}

TEST_P(ExactnessAcrossSegments, WhatWasTruncatedLeavesNoTrace) {
  const auto model = open();
  const std::vector<int32_t> first = some_tokens(620, 37), second = some_tokens(620, 41);
  Session reused(*model), fresh(*model);
  reused.eval(first);
  reused.truncate(70);
  fresh.eval(std::span(first).first(70));
  for (const size_t end : {75, 76, 620}) {
    const auto more = std::span(second).subspan(reused.position(), end - reused.position());
    const auto a = reused.eval(more), b = fresh.eval(more);
    ASSERT_EQ(a.size(), b.size());
    EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size_bytes()), 0) << end;
  }
}

// A model of one small layer, so that tens of thousands of positions are within reach.
std::string small_model(const test::TempFolder& folder, size_t window) {
  test::SmallCheckpoint shape;
  shape.window = window;
  ConvertOptions options;
  options.source = folder.file("checkpoint");
  options.output = folder.file("small.gguf");
  options.type = "q8_0";
  options.n_threads = 1;
  options.no_tokenizer = true;
  test::write_small_checkpoint(shape, options.source);
  convert(options, {});
  return options.output;
}

// The ways on which a sequence comes to its last tokens.
struct Pass {
  std::string isa;
  int n_threads;
  size_t chunk;        // tokens evaluated together near the end
  size_t micro_batch;  // before
};

// Logits of the last n_last of n tokens.
std::vector<float> last_logits(const std::string& path, KvType kv, const Pass& pass, size_t n,
                               size_t n_last) {
  ModelOptions options;
  options.context = n;
  options.kv = kv;
  options.isa = pass.isa;
  options.n_threads = pass.n_threads;
  const auto model = test::open_model(path, options);
  std::mt19937 random(3);
  std::vector<int32_t> tokens(n);
  for (int32_t& id : tokens) id = static_cast<int32_t>(random() % model->hparams().vocab_size);
  Session session(*model, pass.micro_batch);
  session.eval(std::span(tokens).first(n - n_last));
  std::vector<float> all;
  while (session.position() < n) {
    const auto piece =
        std::span(tokens).subspan(session.position(), std::min(pass.chunk, n - session.position()));
    session.eval(piece, piece.size(), [&](size_t, std::span<const float> logits) {
      all.insert(all.end(), logits.begin(), logits.end());
    });
  }
  return all;
}

class ExactnessOfLongContexts : public testing::TestWithParam<KvType> {
 protected:
  // Every pass of the sets that can take part, against the first.
  void expect_the_same(const std::string& path, size_t n, size_t n_last, bool with_reference) const {
    std::vector<float> first;
    for (const KernelSetRow& row : kernel_sets()) {
      const bool slow = &row == &kernel_sets().front();
      if (!row.supported(cpu_features()) || (slow && !with_reference)) continue;
      if (QUERN_SANITIZED && row.set != &select_kernel_set()) continue;
      for (const Pass& pass : {Pass{row.set->name, 1, 1, 512}, Pass{row.set->name, 2, n_last, 512},
                               Pass{row.set->name, 3, 5, 200}}) {
        if (slow && !first.empty()) continue;
        const std::vector<float> out = last_logits(path, GetParam(), pass, n, n_last);
        if (first.empty()) first = out;
        ASSERT_EQ(out.size(), first.size());
        ASSERT_EQ(std::memcmp(out.data(), first.data(), out.size() * sizeof(float)), 0)
            << pass.isa << ", threads " << pass.n_threads << ", pieces of " << pass.chunk << ", tokens " << n;
      }
    }
    if (first.empty()) GTEST_SKIP() << "the reference would take too long";
    // What is compared is no row of the same numbers.
    EXPECT_NE(std::memcmp(first.data(), first.data() + first.size() / 2, first.size() / 2 * sizeof(float)),
              0);
  }
};

INSTANTIATE_TEST_SUITE_P(KvTypes, ExactnessOfLongContexts,
                         testing::Values(KvType::kF16, KvType::kF32, KvType::kQ8_0), kv_name);

// The last tokens lie on both sides of 32768, the end of the trained context; the window begins and ends in
// different segments.
TEST_P(ExactnessOfLongContexts, HoldsWithAWindowAcross32768) {
  const test::TempFolder folder;
  expect_the_same(small_model(folder, 40), 32768 + 5, 12, true);
}

// Without a window the reference comes to the third segment only, the others across 8192.
TEST_P(ExactnessOfLongContexts, HoldsAcrossManySegmentsOfGlobalAttention) {
  const test::TempFolder folder;
  const std::string path = small_model(folder, 0);
  expect_the_same(path, 1024 + 5, 12, true);
  expect_the_same(path, 8192 + 5, 12, false);
}

}  // namespace
}  // namespace quern
