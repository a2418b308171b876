// Answers of models that think aloud, between <think> and </think>.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "runtime/tokenizer/tokenizer.h"

namespace quern {

// Did the template open a block of thought for the model?
bool ends_in_thought(const Tokenizer& tokenizer, std::span<const TokenId> prompt);
// Does a template know of such blocks?
bool knows_thought(std::string_view chat_template);

// Parts an answer into the thought that it begins with and the rest. The tags, and white space around the
// thought, belong to neither; a block further behind is text.
class ThoughtSplitter {
 public:
  struct Parts {
    std::string thought, text;
    bool empty() const { return thought.empty() && text.empty(); }
  };

  // begins_inside: the prompt has opened the block already.
  explicit ThoughtSplitter(bool begins_inside) : state_(begins_inside ? State::kThought : State::kBegin) {}

  // What is certain now; joined over all calls, it does not depend on the pieces that the answer came in.
  Parts push(std::string_view text);
  Parts finish();  // the rest

 private:
  enum class State : uint8_t { kBegin, kThought, kAfter, kText };

  void drop_space();

  State state_;
  bool thought_begun_ = false;  // something but white space
  std::string pending_;
};

// Shows the blocks dimmed.
class ThinkingDimmer {
 public:
  // begins_inside: the prompt has opened the block already. `write` gets the text with the terminal's
  // sequences in it; a tag that may still become whole is held back.
  ThinkingDimmer(bool begins_inside, std::function<void(std::string_view)> write);

  void push(std::string_view text);
  void finish();  // the rest; the terminal is left as it was

 private:
  void dim(bool on);

  std::function<void(std::string_view)> write_;
  std::string pending_;
  bool inside_ = false;
};

}  // namespace quern
