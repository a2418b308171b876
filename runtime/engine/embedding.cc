#include "runtime/engine/embedding.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "quant/error.h"

namespace quern {
namespace {

// Numbers of llama.cpp's enum (llama.h LLAMA_POOLING_TYPE), which files carry.
constexpr uint64_t kStatedMean = 1, kStatedLast = 3;

}  // namespace

std::optional<Pooling> parse_pooling(std::string_view word) {
  if (word == pooling_name(Pooling::kMean)) return Pooling::kMean;
  if (word == pooling_name(Pooling::kLast)) return Pooling::kLast;
  return std::nullopt;
}

std::string_view pooling_name(Pooling pooling) { return pooling == Pooling::kMean ? "mean" : "last"; }

std::optional<Pooling> pooling_of(const GgufReader& gguf) {
  const GgufValue* stated =
      gguf.find(fmt::format("{}.pooling_type", gguf.string_or("general.architecture", "")));
  const std::optional<uint64_t> type = stated != nullptr ? stated->as_uint() : std::nullopt;
  if (type == kStatedMean) return Pooling::kMean;
  if (type == kStatedLast) return Pooling::kLast;
  return std::nullopt;
}

void Pooler::add(std::span<const float> state) {
  QUERN_CHECK(n_ == 0 || sum_.size() == state.size());
  if (n_++ == 0 || options_.pooling == Pooling::kLast)
    sum_.assign(state.begin(), state.end());
  else
    for (size_t i = 0; i < state.size(); ++i) sum_[i] += static_cast<double>(state[i]);
}

// The length takes care of the mean's divisor, but for its rounding: so there is none.
std::vector<float> Pooler::finish() const {
  QUERN_CHECK(n_ > 0 && options_.dimensions <= sum_.size());
  const size_t n = options_.dimensions != 0 ? options_.dimensions : sum_.size();
  double squares = 0;
  for (size_t i = 0; i < n; ++i) squares += sum_[i] * sum_[i];
  if (!std::isfinite(squares))
    fail(ErrorCode::kIntegrity, "the embedding is not finite; the weights may be damaged");
  std::vector<float> vector(n);
  if (squares == 0) return vector;
  const double length = std::sqrt(squares);
  for (size_t i = 0; i < n; ++i) vector[i] = static_cast<float>(sum_[i] / length);
  return vector;
}

}  // namespace quern
