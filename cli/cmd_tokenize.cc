// quern tokenize: text or a conversation -> ids and pieces, and back.
#include <cstring>

#include "cli/chat_messages.h"
#include "cli/command.h"
#include "cli/json_writer.h"
#include "cli/parse.h"
#include "cli/report.h"
#include "cli/session_options.h"
#include "cli/text_input.h"
#include "convert/sentencepiece_model.h"
#include "quant/gguf_reader.h"
#include "quant/mapped_file.h"
#include "runtime/tokenizer.h"

namespace quern {
namespace {

struct Options {
  std::string model, chat_format;
  TextInput input;
  std::optional<std::string> chat, decode;
  bool no_bos = false, json = false;
};

bool parse(std::span<const std::string> arguments, Options* options) {
  Arguments parser("tokenize",
                   "Shows the token ids that a text or a conversation becomes, or the text of ids.",
                   "  quern tokenize model.gguf -p \"Hello world\"\n"
                   "  quern tokenize tokenizer.model -f text.txt --no-bos --json\n"
                   "  quern tokenize model.gguf --chat messages.json\n"
                   "  quern tokenize model.gguf --decode 1,22557,1526");
  parser.positional("MODEL", "A GGUF file or a SentencePiece tokenizer.model", &options->model);
  add_text_input(parser, &options->input);
  parser.flag("--no-bos", "Without the begin-of-text token", &options->no_bos);
  parser.text("--chat", "FILE", "The ids that `chat` would feed for a list of {\"role\", \"content\"}",
              &options->chat);
  parser.text("--chat-format", "NAME", "How conversations become ids (default: what the file says)",
              &options->chat_format);
  parser.text("--decode", "N,N,...", "Print the text of these ids", &options->decode);
  parser.flag("--json", "Print {\"ids\": [...], \"pieces\": [...]}", &options->json);
  if (!parser.parse(arguments)) return false;
  if (int{options->input.given()} + int{options->chat.has_value()} + int{options->decode.has_value()} > 1)
    fail(ErrorCode::kUsage, "--prompt or --file, --chat and --decode exclude each other");
  return true;
}

bool is_gguf(std::span<const uint8_t> bytes) {
  return bytes.size() >= 4 && std::memcmp(bytes.data(), "GGUF", 4) == 0;
}

Vocabulary read_gguf_vocabulary(std::span<const uint8_t> bytes, const std::string& path) {
  const GgufReader gguf(bytes, path, notice);
  if (has_no_vocabulary(gguf)) gguf.refuse("the file has no vocabulary (tokenizer.ggml.model is no_vocab)");
  // A file with nothing but a vocabulary has no embedding to agree with.
  const TensorView* embedding = gguf.find_tensor("token_embd.weight");
  const GgufValue* tokens = gguf.find("tokenizer.ggml.tokens");
  const uint64_t n_rows = embedding != nullptr ? embedding->rows() : tokens != nullptr ? tokens->count : 0;
  return read_vocabulary(gguf, n_rows, notice);
}

std::vector<TokenId> encode_conversation(const Options& options, const Tokenizer& tokenizer, bool bare) {
  // A bare tokenizer.model does not say which conversations it is for; the v1 vocabulary is Mistral's.
  std::string name = options.chat_format;
  if (name.empty() && bare) {
    name = "mistral-v1";
    print_notice("chat format: {} (a tokenizer.model names none; override: --chat-format)", name);
  }
  const ChatFormat& format = require_chat_format(name, tokenizer.vocabulary());
  return format.encode(tokenizer, parse_chat_messages(read_bytes(*options.chat), *options.chat));
}

void require_ids_in_range(std::span<const TokenId> ids, const Tokenizer& tokenizer) {
  for (const TokenId id : ids)
    if (static_cast<size_t>(id) >= tokenizer.size())
      fail(ErrorCode::kUsage, "--decode: id {} is not below the vocabulary's size {}", id, tokenizer.size());
}

void print_ids(std::span<const TokenId> ids, const Tokenizer& tokenizer) {
  for (const TokenId id : ids) {
    const std::string& piece = tokenizer.vocabulary().pieces[static_cast<size_t>(id)];
    print_out("{:>6}  {}\n", id, printable(piece, piece.size()));
  }
}

void print_json(std::span<const TokenId> ids, const Tokenizer& tokenizer) {
  JsonWriter json;
  json.begin_object().key("ids").begin_array();
  for (const TokenId id : ids) json.value(id);
  json.end_array().key("pieces").begin_array();
  for (const TokenId id : ids) json.value(tokenizer.vocabulary().pieces[static_cast<size_t>(id)]);
  write_out(json.end_array().end_object().text() + "\n");
}

void print_text(std::span<const TokenId> ids, const Tokenizer& tokenizer, bool json) {
  const std::string text = tokenizer.decode(ids);
  if (json) {
    JsonWriter object;
    write_out(object.begin_object().field("text", text).end_object().text() + "\n");
    return;
  }
  write_out(text);
  if (stdout_is_terminal() && !text.ends_with('\n')) write_out("\n");
}

}  // namespace

int run_tokenize(std::span<const std::string> arguments) {
  Options options;
  if (!parse(arguments, &options)) return 0;
  std::vector<TokenId> ids;
  if (options.decode) ids = parse_ids("--decode", *options.decode);  // refused before anything is read
  const MappedFile file(options.model);
  const bool bare = !is_gguf(file.bytes());
  const Tokenizer tokenizer(bare ? read_sentencepiece_model(file.bytes(), options.model, notice)
                                 : read_gguf_vocabulary(file.bytes(), options.model));
  if (options.decode) {
    require_ids_in_range(ids, tokenizer);
    print_text(ids, tokenizer, options.json);
    return 0;
  }
  if (options.chat) {
    ids = encode_conversation(options, tokenizer, bare);
  } else {
    const std::string text = read_text(options.input);
    ids = options.no_bos ? tokenizer.encode(text) : tokenizer.encode_prompt(text);
  }
  options.json ? print_json(ids, tokenizer) : print_ids(ids, tokenizer);
  return 0;
}

}  // namespace quern
