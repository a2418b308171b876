#include "cli/serve/answer_splitter.h"

#include <iterator>
#include <utility>

namespace quern {

AnswerSplitter::Parts& AnswerSplitter::Parts::operator+=(Parts more) {
  thought += more.thought;
  text += more.text;
  calls.insert(calls.end(), std::make_move_iterator(more.calls.begin()),
               std::make_move_iterator(more.calls.end()));
  return *this;
}

AnswerSplitter::AnswerSplitter(const CompletionRequest& request, uint64_t call_seed, size_t answer)
    : call_seed_(call_seed), answer_(answer), calls_(request.tool_syntax, request.tool_signatures) {
  if (request.splits_thought) thoughts_.emplace(request.begins_in_thought);
}

AnswerSplitter::Parts AnswerSplitter::push(std::string_view text) {
  return split_calls(thoughts_ ? thoughts_->push(text) : ThoughtSplitter::Parts{{}, std::string(text)});
}

AnswerSplitter::Parts AnswerSplitter::finish() {
  Parts parts = split_calls(thoughts_ ? thoughts_->finish() : ThoughtSplitter::Parts{});
  parts.text += calls_.finish().text;
  return parts;
}

AnswerSplitter::Parts AnswerSplitter::split_calls(ThoughtSplitter::Parts parts) {
  ToolCallSplitter::Parts split = calls_.push(parts.text);
  for (ToolCall& call : split.calls) {
    if (call.id.empty()) call.id = make_call_id(call_seed_, answer_, n_calls_);
    ++n_calls_;
  }
  return {std::move(parts.thought), std::move(split.text), std::move(split.calls)};
}

}  // namespace quern
