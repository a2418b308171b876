#include "runtime/logit_file.h"

#include <cstring>

#include "quant/error.h"
#include "runtime/kl_statistics.h"

namespace quern {
namespace {

constexpr char kMagic[] = "_logits_";  // 8 bytes, without the zero

struct Header {
  char magic[8];
  int32_t n_ctx, n_vocab, n_chunk;
};

std::span<const uint8_t> bytes_of(const void* data, size_t n) {
  return {static_cast<const uint8_t*>(data), n};
}

uint64_t file_size(uint64_t n_ctx, uint64_t n_vocab, uint64_t n_tokens) {
  if (n_ctx > INT32_MAX || n_vocab > INT32_MAX || n_tokens > INT32_MAX)
    fail(ErrorCode::kUsage, "--save-logits: {} tokens in chunks of {} are more than the format can count",
         n_tokens, n_ctx);
  const uint64_t rows = n_tokens / n_ctx * (n_ctx - 1 - n_ctx / 2);
  return sizeof(Header) + n_tokens * sizeof(int32_t) + rows * stored_row_words(n_vocab) * sizeof(uint16_t);
}

}  // namespace

LogitFile::LogitFile(const std::string& path, uint64_t n_ctx, uint64_t n_vocab,
                     std::span<const int32_t> tokens)
    : n_vocab_(n_vocab),
      size_(file_size(n_ctx, n_vocab, tokens.size())),
      file_(path, size_, /*overwrite=*/true),
      row_(stored_row_words(n_vocab)) {
  Header header{{},
                static_cast<int32_t>(n_ctx),
                static_cast<int32_t>(n_vocab),
                static_cast<int32_t>(tokens.size() / n_ctx)};
  std::memcpy(header.magic, kMagic, sizeof(header.magic));
  file_.write_at(0, bytes_of(&header, sizeof(header)));
  file_.write_at(sizeof(header), bytes_of(tokens.data(), tokens.size_bytes()));
  offset_ = sizeof(header) + tokens.size_bytes();
}

void LogitFile::add(std::span<const float> logits) {
  QUERN_CHECK(logits.size() == n_vocab_);
  store_row(logits, row_);
  file_.write_at(offset_, bytes_of(row_.data(), row_.size() * sizeof(uint16_t)));
  offset_ += row_.size() * sizeof(uint16_t);
}

void LogitFile::commit() {
  QUERN_CHECK(offset_ == size_);
  file_.commit();
}

}  // namespace quern
