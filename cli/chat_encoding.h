// How a command turns conversations into ids: by a named format, or by running a chat template.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/arguments.h"
#include "cli/chat_messages.h"
#include "cli/tool_syntax.h"
#include "runtime/chat_format.h"
#include "runtime/model.h"
#include "runtime/template/chat_template.h"

namespace quern {

// --chat-format --template --bos-text --eos-text --now
struct ChatArguments {
  std::string format;
  std::optional<std::string> template_file, bos_text, eos_text, now;
  std::optional<std::string> template_text;  // of template_file, once check() has read it

  void declare(Arguments& arguments);
  // Everything that no model is needed for: reads and parses the template, so that a model is not loaded for
  // nothing. Throws kUsage where options exclude each other or name no format, and what a template that
  // cannot be read or run ends in.
  void check();
  // --now, QUERN_NOW, or the time that it is. Throws kUsage for what is no date.
  Clock clock() const;
};

// Throws what ChatEncoding would throw for a GGUF that says nothing, or nothing that runs, of how its
// conversations look, without loading it; and before that what Model::load() refuses the file for. Nothing
// for a path that is no GGUF: whoever loads it says what is wrong.
void require_conversations(const ChatArguments& arguments, const std::string& path,
                           const ModelOptions& options);

class ChatEncoding {
 public:
  // Of arguments that were checked. `fallback`: the format's name where the vocabulary says nothing; empty:
  // that is an error. Throws kUsage with the ways out, kMalformed for a template that does not parse.
  ChatEncoding(const ChatArguments& arguments, const Tokenizer& tokenizer, std::string_view fallback);

  // The line about what was chosen without being asked for; empty when the user chose.
  const std::string& choice() const { return choice_; }
  // The template knows of blocks of thought (cli/thinking.h).
  bool thinks() const { return thinks_; }
  // How its model writes calls of tools; null: there is no template that has them, or its way is not known.
  const ToolSyntax* tool_syntax() const { return tool_syntax_; }
  // Control tokens of the vocabulary that such calls are written with.
  const std::vector<TokenId>& call_tokens() const { return call_tokens_; }
  // A last message of the assistant with "prefix" is gone on with; a template has no common word for that.
  bool continues_answers() const { return format_ != nullptr; }
  // variables: what a template sees (parse_chat_document). A named format reads "messages" and refuses
  // "tools" by name. Special tokens come from the template's own text only; BOS goes in front when the
  // vocabulary adds one and the template did not. Throws what the format or the template refuses.
  std::vector<TokenId> encode(const Json::Object& variables) const;
  std::vector<TokenId> encode(std::span<const ChatMessage> messages) const;
  // What the template prints. Throws kUsage when a named format was chosen, which prints nothing.
  std::string render(const Json::Object& variables) const;

 private:
  void use_template(const std::string& source, const std::string& where);
  std::vector<RenderedSpan> run(const Json::Object& variables) const;

  const Tokenizer& tokenizer_;
  const ChatFormat* format_ = nullptr;    // null: the template
  std::optional<ChatTemplate> template_;  // absent: the format
  std::optional<std::string> bos_text_, eos_text_;
  bool thinks_ = false;
  const ToolSyntax* tool_syntax_ = nullptr;
  std::vector<TokenId> call_tokens_;
  Clock clock_;
  std::string choice_;
};

}  // namespace quern
