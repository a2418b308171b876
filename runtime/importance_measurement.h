// The importance of each matrix's columns on a text: the mean square of what it is multiplied with, chunk by
// chunk as llama-imatrix measures it (formats.md 2.8).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "quant/importance.h"
#include "runtime/engine.h"

namespace quern {

struct ImportanceOptions {
  uint64_t n_ctx = 512;
  uint64_t max_chunks = 0;  // 0: all
};

// Chunks done, and all.
using ImportanceChunkFn = std::function<void(uint64_t done, uint64_t total)>;

// tokens: the whole text's ids; each chunk's first becomes BOS where the vocabulary adds one. Sums are in
// f64, in the order of the tokens. Of the layers' matrices alone; a tensor whose parts are multiplied apart
// counts once, experts each by the rows that chose them. Throws kUsage where the text is shorter than two
// chunks, and what Engine::run throws. What `stop` ended says nothing: empty.
std::vector<ImportanceSums> measure_importance(const Model& model, std::span<const int32_t> tokens,
                                               const ImportanceOptions& options,
                                               const ImportanceChunkFn& on_chunk, StopFlag stop);

}  // namespace quern
