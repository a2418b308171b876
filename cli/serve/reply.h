// Answers of a protocol, as they grow.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "runtime/engine/scheduler.h"

namespace quern {

// The answers to one request. Not thread-safe.
class Reply {
 public:
  virtual ~Reply() = default;

  // Notes what has happened to answer `index`; returns the events of the stream that say so, which may be
  // none.
  virtual std::string push(size_t index, const AnswerEvent& event) = 0;
  // All answers have ended.
  virtual bool finished() const = 0;
  // What the first answer that failed has said; null: none has.
  virtual const AnswerEvent* failure() const = 0;

  // The first events of a stream, the last, and what says that it goes on.
  virtual std::string stream_begin() const = 0;
  virtual std::string stream_end() const = 0;
  virtual std::string heartbeat() const = 0;
  // Once finished: the whole answer.
  virtual std::string whole() const = 0;
};

// Events of a stream (WHATWG, HTML, section 9.2 "Server-sent events"): "data: ...", with an "event: ..."
// before it; comments, which clients skip.
std::string sse_event(std::string_view json);
std::string sse_event(std::string_view type, std::string_view json);
std::string sse_progress(size_t n_read, size_t n_prompt);
inline constexpr std::string_view kSseWaiting = ": waiting\n\n";

}  // namespace quern
