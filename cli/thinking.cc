#include "cli/thinking.h"

#include <algorithm>
#include <utility>

namespace quern {
namespace {

constexpr std::string_view kOpen = "<think>", kClose = "</think>";
constexpr std::string_view kSpace = " \t\r\n";
constexpr std::string_view kDim = "\x1b[2m", kPlain = "\x1b[0m";

// Bytes at the end of `text` that `tag` may begin with.
size_t partial_tag(std::string_view text, std::string_view tag) {
  size_t n = std::min(text.size(), tag.size() - 1);
  while (n > 0 && text.substr(text.size() - n) != tag.substr(0, n)) --n;
  return n;
}

void trim_end(std::string* text) { text->resize(text->find_last_not_of(kSpace) + 1); }

}  // namespace

bool ends_in_thought(const Tokenizer& tokenizer, std::span<const TokenId> prompt) {
  constexpr size_t kTail = 8;  // ids that "<think>" and a newline take at most
  std::string text = tokenizer.decode(prompt.last(std::min(kTail, prompt.size())));
  trim_end(&text);
  return text.ends_with(kOpen);
}

bool knows_thought(std::string_view chat_template) {
  return chat_template.find(kClose) != chat_template.npos;
}

void ThoughtSplitter::drop_space() {
  pending_.erase(0, std::min(pending_.find_first_not_of(kSpace), pending_.size()));
}

ThoughtSplitter::Parts ThoughtSplitter::push(std::string_view text) {
  pending_ += text;
  Parts parts;
  if (state_ == State::kBegin) {
    const size_t begin = std::min(pending_.find_first_not_of(kSpace), pending_.size());
    const std::string_view rest = std::string_view(pending_).substr(begin);
    if (rest.starts_with(kOpen)) {
      pending_.erase(0, begin + kOpen.size());
      state_ = State::kThought;
    } else if (kOpen.starts_with(rest)) {
      return parts;  // may still become the tag
    } else {
      state_ = State::kText;
    }
  }
  if (state_ == State::kThought) {
    if (!thought_begun_) drop_space();
    const size_t close = pending_.find(kClose);
    const bool closed = close != pending_.npos;
    parts.thought = pending_.substr(0, closed ? close : pending_.size() - partial_tag(pending_, kClose));
    trim_end(&parts.thought);
    thought_begun_ |= !parts.thought.empty();
    pending_.erase(0, closed ? close + kClose.size() : parts.thought.size());
    if (closed) state_ = State::kAfter;
  }
  if (state_ == State::kAfter) {
    drop_space();
    if (!pending_.empty()) state_ = State::kText;
  }
  if (state_ == State::kText) parts.text = std::exchange(pending_, {});
  return parts;
}

ThoughtSplitter::Parts ThoughtSplitter::finish() {
  Parts parts;
  trim_end(&pending_);
  (state_ == State::kThought ? parts.thought : parts.text) = std::exchange(pending_, {});
  return parts;
}

ThinkingDimmer::ThinkingDimmer(bool begins_inside, std::function<void(std::string_view)> write)
    : write_(std::move(write)) {
  if (begins_inside) dim(true);
}

void ThinkingDimmer::dim(bool on) {
  inside_ = on;
  write_(on ? kDim : kPlain);
}

void ThinkingDimmer::push(std::string_view text) {
  pending_ += text;
  for (;;) {
    const std::string_view tag = inside_ ? kClose : kOpen;
    const size_t at = pending_.find(tag);
    if (at == pending_.npos) break;
    if (!inside_) {
      write_(pending_.substr(0, at));
      dim(true);
      write_(tag);
    } else {
      write_(pending_.substr(0, at + tag.size()));
      dim(false);
    }
    pending_.erase(0, at + tag.size());
  }
  const size_t kept = partial_tag(pending_, inside_ ? kClose : kOpen);
  write_(std::string_view(pending_).substr(0, pending_.size() - kept));
  pending_.erase(0, pending_.size() - kept);
}

void ThinkingDimmer::finish() {
  write_(pending_);
  pending_.clear();
  if (inside_) dim(false);
}

}  // namespace quern
