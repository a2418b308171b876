// Calls of tools in answers, as models write them that were trained on a chat template.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/tool_syntax.h"

namespace quern {

struct ToolCall {
  std::string name, arguments;  // arguments: JSON; as the model wrote it, where it wrote JSON
  std::string id;               // empty: the model wrote none
};

// What a tool's arguments may be: where a model writes strings without quotes, only this tells "3" from 3.
struct ToolSignature {
  std::string tool;
  // Name, and bits of types (TypeBit in runtime/engine/schema_document.h); another's are any.
  std::vector<std::pair<std::string, unsigned>> parameters;
};

// A call that is still being written: what was read of it already, so that a long one is not read from its
// beginning with each piece that comes.
struct PartialCall {
  ToolCall call;
  std::vector<std::pair<std::string, std::string>> members;  // arguments written as texts: name, JSON
  size_t n_read = 0;                                         // bytes that these were read from
  // For the end of a value, or of a text, that has not come yet.
  struct Search {
    size_t begin = std::string::npos;  // of the value
    ValueSearch behind{};              // it
  };
  Search search;
};

// Parts an answer into text and calls. It takes calls as serve/tool_request.h has them written; what was cut
// short, or is none, stays text. An answer takes time in proportion to its length, in whatever pieces it
// comes.
class ToolCallSplitter {
 public:
  struct Parts {
    std::string text;
    std::vector<ToolCall> calls;
  };

  // syntax: null: all is text.
  explicit ToolCallSplitter(const ToolSyntax* syntax, std::vector<ToolSignature> signatures = {})
      : syntax_(syntax), signatures_(std::move(signatures)) {}

  // What is certain now; joined over all calls, it does not depend on the pieces that the answer came in.
  Parts push(std::string_view text);
  Parts finish();  // the rest

 private:
  enum class State : uint8_t {
    kText,     // a call may come
    kOpen,     // the pending text begins as calls do
    kBetween,  // behind a call, of those that stand between `open` and `close`
    kRest,     // no call comes any more
  };

  bool take_text(Parts* parts);     // up to the next call; false: no more is certain
  bool take_call(Parts* parts);     // with what comes before it
  bool take_between(Parts* parts);  // the end of the calls, or what is before the next
  void give_up(Parts* parts);       // it is no call: all is text from here on

  const ToolSyntax* syntax_;
  std::vector<ToolSignature> signatures_;
  State state_ = State::kText;
  bool is_first_ = true;  // of the calls between `open` and `close`
  bool had_calls_ = false;
  std::string pending_;
  size_t n_blank_ = 0;   // kText: pending bytes that are white space, and known to be
  PartialCall partial_;  // kOpen: what the pending text begins with
};

// An id of nine letters and digits, which differs for different arguments. Mistral's templates ask for such.
std::string make_call_id(uint64_t seed, size_t answer, size_t call);

}  // namespace quern
