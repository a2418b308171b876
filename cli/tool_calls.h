// Calls of tools in answers, as models write them that were trained on a chat template.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/tokenizer/tokenizer.h"

namespace quern {

enum class ToolFormat : uint8_t {
  kNone,    // the template has no tools, or its model writes calls in a way that is not known here
  kTagged,  // text <tool_call>{"name": ..., "arguments": {...}}</tool_call> ... (Hermes, Qwen, Granite 4)
  kBare,    // {"name": ..., "parameters": {...}} and nothing else (Llama 3)
  kMistralList,   // text [TOOL_CALLS][{"name": ..., "arguments": {...}}, ...]
  kMistralNamed,  // text [TOOL_CALLS]name[ARGS]{...}[TOOL_CALLS] ...
};

ToolFormat tool_format_of(std::string_view chat_template);
// What begins a call; empty: nothing does, the answer is one.
std::string_view call_mark(ToolFormat format);
// Control tokens of the vocabulary that such calls are written with.
std::vector<TokenId> call_tokens(ToolFormat format, const Tokenizer& tokenizer);

struct ToolCall {
  std::string name, arguments;  // arguments: JSON, as the model wrote it
  std::string id;               // empty: the model wrote none
};

// Parts an answer into text and calls. It takes calls as tool_grammar.h writes them; what was cut short, or
// is none, stays text.
class ToolCallSplitter {
 public:
  struct Parts {
    std::string text;
    std::vector<ToolCall> calls;
  };

  explicit ToolCallSplitter(ToolFormat format) : format_(format) {}

  // What is certain now; joined over all calls, it does not depend on the pieces that the answer came in.
  Parts push(std::string_view text);
  Parts finish();  // the rest

 private:
  bool take_text(Parts* parts);  // up to the next call; false: no more is certain
  bool take_call(Parts* parts);
  bool take_tagged(Parts* parts);
  bool take_named(Parts* parts);
  bool take_list(Parts* parts);
  bool take_bare(Parts* parts);
  void give_up(Parts* parts);  // it is no call: all is text from here on

  ToolFormat format_;
  bool in_call_ = false;  // behind the mark
  bool is_text_ = false;  // no call comes any more
  bool had_calls_ = false;
  std::string pending_;
};

// An id of nine letters and digits, which differs for different arguments. Mistral's templates ask for such.
std::string make_call_id(uint64_t seed, size_t answer, size_t call);

}  // namespace quern
