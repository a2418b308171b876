// quern chat: a conversation on a terminal, or line by line from a pipe.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

#include "cli/chat_encoding.h"
#include "cli/chat_messages.h"
#include "cli/command.h"
#include "cli/conversation.h"
#include "cli/draft_model.h"
#include "cli/generation_report.h"
#include "cli/line_reader.h"
#include "cli/model_progress.h"
#include "cli/report.h"
#include "cli/session_options.h"
#include "cli/suggest.h"
#include "cli/text_input.h"
#include "cli/thinking.h"
#include "quant/machine/stop_signal.h"
#include "quant/output_file.h"
#include "runtime/generate.h"

namespace quern {
namespace {

struct Options {
  std::string model, system;
  std::optional<std::string> load;
  ChatArguments conversation;
  std::optional<std::string> opening;  // the first message
  TextInput input;
  SessionArguments session;
  GenerationArguments generation;
  CacheArguments cache;
  bool once = false, json = false, no_history = false;
};

bool parse(std::span<const std::string> arguments, Options* options) {
  Arguments parser("chat",
                   "Talks with a model: a line is a message, what is pasted is one too, and a line that ends "
                   "in a backslash goes "
                   "on in the next. /help lists the commands. Ctrl-C stops an answer, clears what is typed, "
                   "and asked twice leaves.",
                   "  quern chat model.gguf\n"
                   "  quern chat model.gguf \"What is a quern?\"\n"
                   "  quern chat model.gguf --system \"Answer in one sentence.\" --temp 0.7\n"
                   "  quern chat model.gguf --once -p \"What is a quern?\"");
  parser.positional("MODEL", "A GGUF file", &options->model);
  parser.optional_positional("TEXT", "The first message", &options->opening);
  parser.text("--system", "TEXT", "The system text", &options->system);
  parser.text("--load", "FILE", "Go on with a conversation that /save wrote", &options->load);
  options->conversation.declare(parser);
  parser.flag("--once", "Read one message (-p, -f or stdin), print the answer, end", &options->once);
  add_text_input(parser, &options->input, "-p and --stop");
  parser.flag("--json", "With --once: print one object: text, ids, timings", &options->json);
  parser.flag("--no-history", "Neither read nor keep the history of messages", &options->no_history);
  options->generation.generate.max_tokens = -1;
  options->generation.declare(parser, "Tokens of an answer at most (default -1: until it ends)");
  options->session.declare(parser);
  options->cache.declare(parser);
  if (!parser.parse(arguments)) return false;
  options->conversation.check();
  return true;
}

constexpr std::string_view kHelp =
    "/help         this list\n"
    "/reset        forget the conversation\n"
    "/undo         forget the last message and its answer\n"
    "/regen        answer the last message again\n"
    "/edit TEXT    ask this instead of the last message (nothing: show it)\n"
    "/read FILE    send a file's text as a message\n"
    "/system TEXT  set the system text (nothing: show it)\n"
    "/save FILE    write the conversation as JSON messages\n"
    "/load FILE    go on with a conversation that /save wrote\n"
    "/stats        tokens and speed of the last answer, use of the context\n"
    "/exit         leave (Ctrl-D too)\n"
    "A message that begins with a slash: put a space before it.";

std::string turns(size_t n) { return fmt::format("{} turn{}", n, n == 1 ? "" : "s"); }

// Commands that Tab completes.
std::vector<std::string> command_names() {
  std::vector<std::string> names;
  std::string_view help = kHelp;
  while (!help.empty()) {
    const std::string_view line = help.substr(0, help.find('\n'));
    if (line.starts_with('/')) names.emplace_back(line.substr(0, line.find(' ')));
    help.remove_prefix(std::min(line.size() + 1, help.size()));
  }
  return names;
}

// A file's name as a shell would have read it: no shell did.
std::string expand_home(const std::string& path) {
  const char* const home = std::getenv("HOME");
  return path.starts_with("~/") && home != nullptr ? home + path.substr(1) : path;
}

class Chat {
 public:
  // earlier: what the conversation goes on from. draft: outlives it; null: none.
  Chat(const Model& model, const ChatEncoding& encoding, const Options& options,
       const std::optional<std::vector<ChatMessage>>& earlier, DraftModel* draft)
      : model_(model),
        options_(options.generation.options()),
        once_(options.once),
        speculates_(!options.generation.no_speculation),
        session_(model),
        cache_(options.cache.open(model)),
        conversation_([&encoding](auto messages) { return encoding.encode(messages); }, model.context(),
                      answer_room(options.generation.generate.max_tokens, model.context())) {
    options_.new_text = true;
    if (draft != nullptr) draft->join(&speculation_);
    if (earlier) load(*options.load, *earlier);
    if (!options.system.empty()) conversation_.set_system(options.system);
  }

  // Answers one message; the answer goes to on_text as it comes. Returns the signal that stopped it, or 0.
  int answer(const std::string& message, const std::function<void(std::string_view)>& on_text);
  // Runs a line that begins with a slash. False: leave. message: what is to be answered now, if anything.
  bool command(std::string_view line, std::optional<std::string>* message);

  const GenerateResult& last() const { return last_; }

 private:
  // Old turns go when less than this is left for an answer.
  static uint64_t answer_room(int64_t max_tokens, uint64_t context) {
    const uint64_t quarter = std::max<uint64_t>(context / 4, 1);
    return max_tokens > 0 ? std::min(static_cast<uint64_t>(max_tokens), quarter) : quarter;
  }
  void save(const std::string& path) const;
  void load(const std::string& path, std::span<const ChatMessage> messages);  // throws
  void stats() const;
  void edit(const std::string& text, std::optional<std::string>* message);

  const Model& model_;
  CompletionOptions options_;
  bool once_, speculates_;
  Session session_;
  Speculation speculation_;
  const std::unique_ptr<PrefixCache> cache_;
  Conversation conversation_;
  GenerateResult last_;
};

int Chat::answer(const std::string& message, const std::function<void(std::string_view)>& on_text) {
  size_t n_dropped = 0;
  const std::vector<TokenId> ids = conversation_.ask(message, &n_dropped);
  if (n_dropped > 0)
    print_notice("warning: the context of {} tokens is full: dropped the oldest {} ({})", model_.context(),
                 turns(n_dropped), context_note(model_));
  if (!once_ && ids.size() >= model_.context()) {  // a long message must not end the conversation
    conversation_.withdraw();
    print_notice("the message makes {} tokens and the context has {} ({}): shorten it", ids.size(),
                 model_.context(), context_note(model_));
    return 0;
  }
  const StopScope stop;
  PromptProgress progress(session_, ids.size());
  const bool dims = stdout_is_terminal() && terminal_knows_sequences();
  ThinkingDimmer shown(dims && ends_in_thought(model_.tokenizer(), ids), on_text);
  const auto show = [&](std::string_view text) { dims ? shown.push(text) : on_text(text); };
  last_ = generate(session_, ids, options_, show, {},
                   {.stop = stop.flag(), .on_micro_batch = [&] { progress.update(); }},
                   {.speculation = speculates_ ? &speculation_ : nullptr, .cache = cache_.get()});
  progress.clear();
  if (dims) shown.finish();
  // An answer that was stopped is kept and closed like any other; an empty one cannot be (mistral_common).
  if (last_.text.empty()) {
    conversation_.withdraw();
    notice("no answer; the message is forgotten");
  } else {
    conversation_.answer(last_.text);
  }
  report_full_context(model_, last_);
  return stop.signal();
}

// What a command is called here that ollama and llama-cli call otherwise.
std::string_view own_command(std::string_view name) {
  if (name == "/bye" || name == "/quit") return "/exit";
  if (name == "/clear") return "/reset";
  if (name == "/?") return "/help";
  return name;
}

// "/exit strategies?" is a message whose space was forgotten: nobody's conversation ends by that.
bool takes_argument(std::string_view name) {
  constexpr std::string_view kAlone[] = {"/reset", "/undo", "/regen", "/stats", "/exit"};
  return std::find(std::begin(kAlone), std::end(kAlone), name) == std::end(kAlone);
}

bool Chat::command(std::string_view line, std::optional<std::string>* message) {
  const size_t space = std::min(line.find(' '), line.size());
  const std::string_view name = own_command(line.substr(0, space));
  const size_t begin = std::min(line.find_first_not_of(' ', space), line.size());
  const std::string argument(line.substr(begin, line.find_last_not_of(' ') + 1 - begin));
  if (!argument.empty() && !takes_argument(name)) {
    print_notice("{} takes nothing behind it (a message that begins with a slash: put a space first)", name);
    return true;
  }
  if (name == "/exit") return false;
  if (name == "/help") {
    notice(kHelp);
  } else if (name == "/reset") {
    conversation_.reset();
    notice("the conversation is forgotten");
  } else if (name == "/undo") {
    notice(conversation_.undo() ? "the last turn is forgotten" : "there is nothing to undo");
  } else if (name == "/regen") {
    *message = conversation_.take_back();
    if (!*message) notice("there is nothing to answer again");
  } else if (name == "/edit") {
    edit(argument, message);
  } else if (name == "/read" || name == "/load") {
    // A wrong path must not end the conversation.
    try {
      if (argument.empty()) return notice(fmt::format("{} needs a file name", name)), true;
      TextInput input;
      input.file = expand_home(argument);
      if (name == "/load")
        load(*input.file, parse_chat_messages(read_bytes(*input.file), *input.file));
      else if (std::string text = read_text(input, TextRule::kMessage); text.empty())
        print_notice("'{}' is empty: nothing is asked", printable(*input.file, kPathBytes));
      else
        *message = std::move(text);
    } catch (const Error& error) {
      notice(error.what());
    }
  } else if (name == "/system") {
    if (!argument.empty()) conversation_.set_system(argument);
    print_notice("system: {}", conversation_.system().empty() ? "(none)" : conversation_.system());
  } else if (name == "/save") {
    save(expand_home(argument));
  } else if (name == "/stats") {
    stats();
  } else {
    print_notice(
        "unknown command {}{}; /help lists them (a message that begins with a slash: put a space first)",
        printable(name),
        name == "/set" ? std::string(" (/system TEXT sets the system text; other settings "
                                     "are options of quern chat)")
                       : suggestion(name, command_names()));
  }
  return true;
}

// Whether a file may be replaced by a conversation: only another one, or an empty one. A name that was meant
// otherwise must not cost a model or a text.
bool is_replaceable(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored) || std::filesystem::file_size(path, ignored) == 0)
    return true;
  std::ifstream file(path, std::ios::binary);
  if (const int first = file.get(); first != '[' && first != '{') return false;
  try {
    parse_chat_messages(read_bytes(path), path);
    return true;
  } catch (const Error&) {
    return false;
  }
}

// Says what went wrong instead of throwing: a wrong path must not end the conversation.
void Chat::save(const std::string& path) const {
  if (path.empty()) return notice("/save needs a file name");
  if (!is_replaceable(path))
    return print_notice("/save: '{}' is there already, and no conversation", printable(path, kPathBytes));
  const std::string json = chat_messages_json(conversation_.messages());
  try {
    OutputFile file(path, json.size(), /*overwrite=*/true);
    file.write_at(0, {reinterpret_cast<const uint8_t*>(json.data()), json.size()});
    file.commit();
    print_notice("saved {} to '{}'", turns(conversation_.n_turns()), printable(path, kPathBytes));
  } catch (const Error& error) {
    notice(error.what());
  }
}

void Chat::load(const std::string& path, std::span<const ChatMessage> messages) {
  conversation_.load(messages);
  print_notice("loaded {} from '{}'", turns(conversation_.n_turns()), printable(path, kPathBytes));
}

void Chat::edit(const std::string& text, std::optional<std::string>* message) {
  const std::optional<std::string> old = conversation_.last_message();
  if (!old) return notice("there is no message to edit");
  if (text.empty()) return print_notice("/edit {}", *old);
  conversation_.undo();
  *message = text;
}

void Chat::stats() const {
  print_notice("{}, {} of {} positions used", turns(conversation_.n_turns()), session_.position(),
               model_.context());
  report_timings(model_, last_);
}

void print_piece(std::string_view piece) {
  write_out(piece);
  flush_out();
}

int answer_once(Chat& chat, const Model& model, const Options& options, const std::string& message) {
  refuse_hopeless_text(message, model);
  const auto ignore = [](std::string_view) {};
  const int signal = options.json ? chat.answer(message, ignore) : chat.answer(message, print_piece);
  write_out(options.json ? generation_json(model, chat.last()) : "\n");
  flush_out();
  report_timings(model, chat.last());
  return signal != 0 ? stop_exit_code() : 0;
}

// Answers a message, or runs a command: a line with a slash at its start. False: the conversation is over,
// with *exit_code.
bool take_turn(Chat& chat, const std::string& message, int* exit_code) {
  if (message.empty()) return true;
  std::optional<std::string> asked = message;
  if (message.front() == '/' && message.find('\n') == message.npos) {
    asked.reset();
    if (!chat.command(message, &asked)) return false;
    if (!asked) return true;
  }
  const int signal = chat.answer(*asked, print_piece);
  write_out("\n");
  flush_out();
  if (signal == 0 || signal == SIGINT) return true;
  *exit_code = stop_exit_code();
  return false;
}

// The first Ctrl-C stops an answer; outside of an answer a signal ends the process (stop_signal.h).
int converse(Chat& chat, const Options& options) {
  LineReader reader({"> ", command_names(), options.no_history ? "" : default_history_file()});
  if (reader.interactive()) notice("/help lists the commands; Ctrl-C stops an answer, Ctrl-D leaves");
  int exit_code = 0;
  if (options.opening && !take_turn(chat, *options.opening, &exit_code)) return exit_code;
  while (const std::optional<std::string> message = reader.read())
    if (!take_turn(chat, *message, &exit_code)) return exit_code;
  if (reader.interactive()) notice("");  // the end of the input (Ctrl-D) left the cursor behind the prompt
  return exit_code;
}

// The message of --once. `echo hello | quern chat MODEL --once`: the newline is echo's.
std::string read_message(const Options& options) {
  if (options.opening) return *options.opening;
  if (options.input.text && !options.input.file && options.input.text != "-" && stdin_holds_a_text())
    notice("stdin is not read beside -p: -f - reads it too, behind the text of -p");
  return read_text(options.input, TextRule::kMessage);
}

}  // namespace

int run_chat(std::span<const std::string> arguments) {
  Options options;
  if (!parse(arguments, &options)) return 0;
  if (!options.once && (options.input.given() || options.json))
    fail(ErrorCode::kUsage,
         "--prompt, --file and --json need --once; a first message goes behind MODEL: quern chat MODEL TEXT");
  if (options.opening && options.input.given())
    fail(ErrorCode::kUsage, "the message is given twice: as TEXT and with --prompt or --file");
  if (options.input.escapes)
    for (std::string& stop : options.generation.generate.stop) stop = unescape("--stop", stop);
  std::string message;
  if (options.once) message = read_message(options);
  if (options.once && message.empty())
    fail(ErrorCode::kUsage, "--once: the message is empty: give -p TEXT, -f FILE or pipe one in");
  // Refused before the model is loaded.
  static_cast<void>(options.generation.unseeded());
  std::optional<std::vector<ChatMessage>> earlier;
  if (options.load) earlier = parse_chat_messages(read_bytes(*options.load), *options.load);

  ModelOptions model_options = options.session.options();
  require_conversations(options.conversation, options.model, model_options);
  const std::optional<std::string>& draft_path = options.generation.draft;
  if (draft_path) model_options.promised_bytes = DraftModel::memory(*draft_path, model_options).total();
  const auto model = load_model(options.model, model_options);
  const ChatEncoding encoding(options.conversation, model->tokenizer(), "");
  if (!encoding.choice().empty()) notice(encoding.choice());
  const auto draft = load_draft(draft_path, model_options, *model);
  Chat chat(*model, encoding, options, earlier, draft.get());
  if (options.once) return answer_once(chat, *model, options, message);
  return converse(chat, options);
}

}  // namespace quern
