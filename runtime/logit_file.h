// llama-perplexity's file of a base's log-probabilities (cli/conventions.md 4.3), as --kl-divergence-base of
// that program writes and --kl-divergence reads it.
//
// "_logits_" | int32 n_ctx, n_vocab, n_chunk | int32 tokens[n_chunk * n_ctx], as the text has them: BOS is
// not put in | for each chunk n_ctx - 1 - n_ctx / 2 rows of uint16[stored_row_words(n_vocab)]
// (kl_statistics.h). All in the machine's order of bytes, which is little-endian everywhere that this runs.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "quant/output_file.h"

namespace quern {

class LogitFile {
 public:
  // tokens: those of all chunks, n_ctx each. An existing file is replaced, by commit(). Throws like
  // OutputFile, kUsage for what the format's 32 bits cannot count.
  LogitFile(const std::string& path, uint64_t n_ctx, uint64_t n_vocab, std::span<const int32_t> tokens);

  // The next row: logits [n_vocab].
  void add(std::span<const float> logits);
  // All rows must be there.
  void commit();

 private:
  uint64_t n_vocab_, size_;
  OutputFile file_;
  uint64_t offset_ = 0;
  std::vector<uint16_t> row_;
};

}  // namespace quern
