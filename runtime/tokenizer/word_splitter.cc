#include "runtime/tokenizer/word_splitter.h"

#include <array>

#include "quant/error.h"

namespace quern {
namespace {

enum Kind : uint8_t { kControl, kSpace, kDigit, kSmall, kCapital, kSign, kBeyond };

constexpr std::array<Kind, 256> kKinds = [] {
  std::array<Kind, 256> kinds{};
  for (int c = 0x80; c <= 0xFF; ++c) kinds[c] = kBeyond;
  for (int c = '!'; c <= '~'; ++c) kinds[c] = kSign;
  for (int c = '0'; c <= '9'; ++c) kinds[c] = kDigit;
  for (int c = 'a'; c <= 'z'; ++c) kinds[c] = kSmall;
  for (int c = 'A'; c <= 'Z'; ++c) kinds[c] = kCapital;
  kinds[' '] = kSpace;
  return kinds;
}();

Kind kind_of(char c) { return kKinds[static_cast<uint8_t>(c)]; }
bool is_letter(Kind kind) { return kind == kSmall || kind == kCapital; }

// Where the match that begins at `begin` ends, if AsciiWords says; 0: run the pattern.
size_t end_of_ascii_word(std::string_view text, size_t begin, AsciiWords words) {
  if (words == AsciiWords::kNone) return 0;
  const auto kind_at = [text](size_t i) { return i < text.size() ? kind_of(text[i]) : kSpace; };
  const auto skip = [&](size_t* at, auto&& belongs) {
    while (belongs(kind_at(*at))) ++*at;
  };
  const bool space = kind_at(begin) == kSpace;
  size_t end = begin + space;
  const size_t first = end;
  if (words == AsciiWords::kCased) {
    skip(&end, [](Kind kind) { return kind == kCapital; });
    skip(&end, [](Kind kind) { return kind == kSmall; });
  } else {
    skip(&end, is_letter);
  }
  if (end > first) {
    const bool apostrophe = words == AsciiWords::kCased && end < text.size() && text[end] == '\'';
    return kind_at(end) == kBeyond || apostrophe ? 0 : end;
  }
  if (!space || words == AsciiWords::kLetters) return 0;
  skip(&end, [](Kind kind) { return kind == kSign; });
  return end == first || kind_at(end) == kBeyond || kind_at(end) == kControl ? 0 : end;
}

}  // namespace

WordSplitter::WordSplitter(const PreTokenizer& pre_tokenizer) {
  steps_.reserve(pre_tokenizer.steps.size());
  for (const SplitStep& step : pre_tokenizer.steps) {
    const auto sees = step.sees_bytes ? Pattern::Sees::kBytes : Pattern::Sees::kCharacters;
    steps_.push_back({Pattern(step.pattern, sees), step.ascii_words});
  }
}

void WordSplitter::split(std::string_view text, std::vector<std::string_view>* words) const {
  PatternSearch search;
  split(text, 0, &search, words);
}

void WordSplitter::split(std::string_view text, size_t step, PatternSearch* search,
                         std::vector<std::string_view>* words) const {
  if (step == steps_.size()) {
    if (!text.empty()) words->push_back(text);
    return;
  }
  size_t handed_on = 0;
  for (size_t begin = 0, end = 0; end < text.size();) {
    if (const size_t word_end = end_of_ascii_word(text, end, steps_[step].ascii_words)) {
      begin = end;
      end = word_end;
    } else if (!search->find(steps_[step].pattern, text, end, &begin, &end)) {
      break;
    }
    QUERN_CHECK(end > begin);  // no pattern matches nothing
    split(text.substr(handed_on, begin - handed_on), step + 1, search, words);
    split(text.substr(begin, end - begin), step + 1, search, words);
    handed_on = end;
  }
  split(text.substr(handed_on), step + 1, search, words);
}

}  // namespace quern
