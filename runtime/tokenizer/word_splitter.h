// Cuts text into the words of a pre-tokenizer (quant/pre_tokenizer.h).
#pragma once

#include <string_view>
#include <vector>

#include "quant/pre_tokenizer.h"
#include "runtime/tokenizer/pattern.h"

namespace quern {

// Immutable, thread-safe.
class WordSplitter {
 public:
  explicit WordSplitter(const PreTokenizer& pre_tokenizer);

  // Appends the words of `text`, which is well-formed UTF-8: in order, none empty, together all of it. Throws
  // kResource as PatternSearch does.
  void split(std::string_view text, std::vector<std::string_view>* words) const;

 private:
  void split(std::string_view text, size_t step, PatternSearch* search,
             std::vector<std::string_view>* words) const;

  struct Step {
    Pattern pattern;
    AsciiWords ascii_words;
  };
  std::vector<Step> steps_;
};

}  // namespace quern
