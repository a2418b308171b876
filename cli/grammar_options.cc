#include "cli/grammar_options.h"

#include <filesystem>

#include "cli/text_input.h"
#include "quant/error.h"
#include "quant/json/json.h"
#include "quant/utf8.h"
#include "runtime/engine/grammar_gbnf.h"
#include "runtime/engine/grammar_schema.h"

namespace quern {
namespace {

// Other programs take the text itself where ours take a file.
std::string read_grammar_file(std::string_view option, const std::string& path, std::string_view mark) {
  std::error_code error;
  if (path != "-" && path.find(mark) != path.npos && !std::filesystem::exists(path, error))
    fail(ErrorCode::kUsage, "{} takes a file, and this looks like its text; put it into one: '{}'", option,
         printable(path));
  std::string text = read_bytes(path);
  refuse_utf16(text, printable(path, kPathBytes));
  skip_byte_order_mark(&text);
  return text;
}

}  // namespace

void GrammarArguments::declare(Arguments& arguments) {
  arguments.text("--grammar", "FILE", "Hold the answer to the GBNF grammar in this file", &grammar);
  arguments.text("--json-schema", "FILE", "Hold the answer to JSON that the JSON schema in this file takes",
                 &json_schema);
}

std::optional<Grammar> GrammarArguments::read() const {
  if (grammar && json_schema) fail(ErrorCode::kUsage, "--grammar excludes --json-schema");
  if (grammar)
    return parse_gbnf(read_grammar_file("--grammar", *grammar, "::="), printable(*grammar, kPathBytes));
  if (!json_schema) return std::nullopt;
  const std::string where = printable(*json_schema, kPathBytes);
  return compile_json_schema(
      parse_json(read_grammar_file("--json-schema", *json_schema, "{"), where, kSchemaLimits), where);
}

std::shared_ptr<const Constraint> constrain(const Model& model, Grammar grammar) {
  auto trie = std::make_shared<const TokenTrie>(model.tokenizer(), model.hparams().vocab_size);
  return std::make_shared<const Constraint>(std::move(grammar), std::move(trie));
}

}  // namespace quern
