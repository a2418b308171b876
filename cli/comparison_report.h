// What `perplexity --against` says of two models: llama-perplexity's rows and blocks
// (cli/conventions.md 4.3), and an object.
#pragma once

#include <cstdint>
#include <string>

#include "quant/json/json_writer.h"
#include "runtime/kl_statistics.h"

namespace quern {

// The titles of comparison_row's columns, a line. width: of the terminal's lines; where all columns have no
// room, chunk, PPL, KL divergence and same top are left.
std::string comparison_header(size_t width);
// A line: chunk, counted from 1, and the figures up to its end. summary: without percentiles is enough.
std::string comparison_row(uint64_t chunk, const KlSummary& summary, size_t width);
// The three blocks of all figures. summary: with percentiles.
std::string comparison_text(const KlSummary& summary);
// The same as fields of the object that `json` has open; shares and differences of probabilities as such, not
// in percent.
void comparison_json(const KlSummary& summary, JsonWriter& json);

}  // namespace quern
