// Test models: the bundled checkpoints converted on demand into a folder of this process, and opened without
// chatter.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/model.h"
#include "runtime/session.h"

namespace quern::test {

// "tiny-mistral", "stories260k", "random-window".
const std::vector<std::string>& bundled_models();

// Path of the bundled checkpoint `model` converted to `type`; made once per process.
std::string converted(const std::string& model, const std::string& type,
                      TensorLayout layout = TensorLayout::kRows);

// The same of any checkpoint folder without a tokenizer.
std::string converted_folder(const std::string& folder, const std::string& type,
                             TensorLayout layout = TensorLayout::kRows);

// Loads without notices.
std::unique_ptr<Model> open_model(const std::string& path, const ModelOptions& options);

// Logits of every token of `ids`, evaluated in pieces of `chunk` tokens: [ids.size() * vocab_size].
std::vector<float> all_logits(const Model& model, const std::vector<int32_t>& ids, size_t chunk,
                              size_t micro_batch);

// n ids of the model's vocabulary; the same for the same seed.
std::vector<int32_t> random_ids(const Model& model, size_t n, uint32_t seed);

}  // namespace quern::test
