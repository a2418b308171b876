#include "runtime/importance_measurement.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "kernels/cpu_device.h"
#include "runtime/perplexity.h"

namespace quern {
namespace {

// Listens to a model's products as long as it lives.
class Sums {
 public:
  explicit Sums(const Model& model) : model_(model) {
    for (const TensorDeclaration& tensor : model.parts().tensors()) {
      if (tensor.layer < 0 || !tensor.is_matrix()) continue;
      const size_t n_matrices = tensor.experts != nullptr ? tensor.experts->size() : 1;
      const uint64_t columns = tensor.shape.back();
      if (tensor.experts != nullptr) {
        for (size_t e = 0; e < n_matrices; ++e) places_[(*tensor.experts)[e].get()] = {entries_.size(), e};
      } else {
        // All parts have the same input.
        const auto first = std::ranges::find_if(tensor.parts, [](const TensorPart& part) {
          return part.matrix != nullptr && *part.matrix != nullptr;
        });
        if (first == tensor.parts.end()) continue;  // optional, and not in the file
        places_[first->matrix->get()] = {entries_.size(), 0};
      }
      entries_.push_back({tensor.name, columns, std::vector<double>(n_matrices * columns),
                          std::vector<uint64_t>(n_matrices)});
    }
    observe_products(model.device(), [this](const DeviceMatrix& weight, std::span<const float* const> rows) {
      add(weight, rows);
    });
  }
  ~Sums() { observe_products(model_.device(), {}); }
  Sums(const Sums&) = delete;
  Sums& operator=(const Sums&) = delete;

  // Those that were multiplied at all.
  std::vector<ImportanceSums> take() {
    std::erase_if(entries_, [](const ImportanceSums& entry) {
      return std::ranges::all_of(entry.counts, [](uint64_t count) { return count == 0; });
    });
    return std::move(entries_);
  }

 private:
  struct Place {
    size_t entry, matrix;
  };

  void add(const DeviceMatrix& weight, std::span<const float* const> rows) {
    const auto found = places_.find(&weight);
    if (found == places_.end()) return;
    ImportanceSums& entry = entries_[found->second.entry];
    double* const sums = &entry.sums[found->second.matrix * entry.columns];
    for (const float* row : rows)
      for (uint64_t i = 0; i < entry.columns; ++i) sums[i] += static_cast<double>(row[i]) * row[i];
    entry.counts[found->second.matrix] += rows.size();
  }

  const Model& model_;
  std::vector<ImportanceSums> entries_;
  std::unordered_map<const DeviceMatrix*, Place> places_;
};

}  // namespace

std::vector<ImportanceSums> measure_importance(const Model& model, std::span<const int32_t> tokens,
                                               const ImportanceOptions& options,
                                               const ImportanceChunkFn& on_chunk, StopFlag stop) {
  require_perplexity_text(tokens.size(), options.n_ctx);
  uint64_t n_chunks = tokens.size() / options.n_ctx;
  if (options.max_chunks != 0) n_chunks = std::min(n_chunks, options.max_chunks);
  const Vocabulary* const vocabulary = model.has_tokenizer() ? &model.tokenizer().vocabulary() : nullptr;
  Engine engine(model);
  engine.finish_all_rows();
  Sequence sequence(model);
  Sums sums(model);
  for (uint64_t i = 0; i < n_chunks; ++i) {
    const auto chunk = tokens.subspan(i * options.n_ctx, options.n_ctx);
    std::vector<int32_t> ids(chunk.begin(), chunk.end());
    if (vocabulary != nullptr && vocabulary->add_bos) ids[0] = vocabulary->bos;
    sequence.truncate(0);
    const Work work[] = {{&sequence, ids, 0, {}}};
    if (!engine.run(work, {.stop = stop})) return {};
    if (on_chunk) on_chunk(i + 1, n_chunks);
  }
  return sums.take();
}

}  // namespace quern
