// quern chat: a conversation on a terminal, or line by line from a pipe.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "cli/chat_messages.h"
#include "cli/command.h"
#include "cli/conversation.h"
#include "cli/line_reader.h"
#include "cli/report.h"
#include "cli/session_options.h"
#include "cli/stop_signal.h"
#include "cli/text_input.h"
#include "runtime/generate.h"

namespace quern {
namespace {

struct Options {
  std::string model, system, chat_format;
  TextInput input;
  SessionArguments session;
  GenerationArguments generation;
  bool once = false, json = false;
};

bool parse(std::span<const std::string> arguments, Options* options) {
  Arguments parser(
      "chat",
      "Talks with a model: a line is a message, /help lists the commands. Ctrl-C stops an answer, "
      "at the prompt it leaves.",
      "  quern chat model.gguf\n"
      "  quern chat model.gguf --system \"Answer in one sentence.\" --temp 0.7\n"
      "  quern chat model.gguf --once -p \"What is a quern?\"");
  parser.positional("MODEL", "A GGUF file", &options->model);
  parser.text("--system", "TEXT", "The system text", &options->system);
  parser.text("--chat-format", "NAME", "How conversations become ids (default: what the file says)",
              &options->chat_format);
  parser.flag("--once", "Read one message (-p, -f or stdin), print the answer, end", &options->once);
  add_text_input(parser, &options->input);
  parser.flag("--json", "With --once: print one object: text, ids, timings", &options->json);
  options->generation.generate.max_tokens = -1;
  options->generation.declare(parser, "Tokens of an answer at most (default -1: until it ends)");
  options->session.declare(parser);
  return parser.parse(arguments);
}

constexpr std::string_view kHelp =
    "/help         this list\n"
    "/reset        forget the conversation\n"
    "/undo         forget the last message and its answer\n"
    "/system TEXT  set the system text (nothing: show it)\n"
    "/save FILE    write the conversation as JSON messages\n"
    "/stats        tokens and speed of the last answer, use of the context\n"
    "/exit         leave (Ctrl-D too)\n"
    "A message that begins with a slash: put a space before it.";

std::string turns(size_t n) { return fmt::format("{} turn{}", n, n == 1 ? "" : "s"); }

class Chat {
 public:
  Chat(const Model& model, const ChatFormat& format, const Options& options)
      : model_(model),
        options_(options.generation.options()),
        once_(options.once),
        session_(model),
        conversation_([&model, &format](auto messages) { return format.encode(model.tokenizer(), messages); },
                      model.context(), answer_room(options.generation.generate.max_tokens, model.context())) {
    options_.new_text = true;
    conversation_.set_system(options.system);
  }

  // Answers one message; the answer goes to on_text as it comes. Returns the signal that stopped it, or 0.
  int answer(const std::string& message, const std::function<void(std::string_view)>& on_text);
  // Runs a line that begins with a slash. False: leave.
  bool command(std::string_view line);

  const GenerateResult& last() const { return last_; }

 private:
  // Old turns go when less than this is left for an answer.
  static uint64_t answer_room(int64_t max_tokens, uint64_t context) {
    const uint64_t quarter = std::max<uint64_t>(context / 4, 1);
    return max_tokens > 0 ? std::min(static_cast<uint64_t>(max_tokens), quarter) : quarter;
  }
  void save(const std::string& path) const;
  void stats() const;

  const Model& model_;
  GenerateOptions options_;
  bool once_;
  Session session_;
  Conversation conversation_;
  GenerateResult last_;
};

int Chat::answer(const std::string& message, const std::function<void(std::string_view)>& on_text) {
  size_t n_dropped = 0;
  const std::vector<TokenId> ids = conversation_.ask(message, &n_dropped);
  if (n_dropped > 0)
    print_notice("the context of {} tokens is full: dropped the oldest {} (override: --ctx)",
                 model_.context(), turns(n_dropped));
  if (!once_ && ids.size() >= model_.context()) {  // a long message must not end the conversation
    conversation_.withdraw();
    print_notice("the message makes {} tokens and the context has {}: shorten it, or raise --ctx", ids.size(),
                 model_.context());
    return 0;
  }
  const StopScope stop;
  last_ = generate(session_, ids, options_, on_text, {}, [&] { return stop.requested(); });
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

bool Chat::command(std::string_view line) {
  const size_t space = line.find(' ');
  const std::string_view name = line.substr(0, space);
  const std::string argument(space == std::string_view::npos ? "" : line.substr(space + 1));
  if (name == "/exit" || name == "/quit") return false;
  if (name == "/help") {
    notice(kHelp);
  } else if (name == "/reset") {
    conversation_.reset();
    notice("the conversation is forgotten");
  } else if (name == "/undo") {
    notice(conversation_.undo() ? "the last turn is forgotten" : "there is nothing to undo");
  } else if (name == "/system") {
    if (!argument.empty()) conversation_.set_system(argument);
    print_notice("system: {}", conversation_.system().empty() ? "(none)" : conversation_.system());
  } else if (name == "/save") {
    save(argument);
  } else if (name == "/stats") {
    stats();
  } else {
    print_notice(
        "unknown command {}; /help lists them (a message that begins with a slash: put a space first)",
        printable(name));
  }
  return true;
}

// Says what went wrong instead of throwing: a wrong path must not end the conversation.
void Chat::save(const std::string& path) const {
  if (path.empty()) return notice("/save needs a file name");
  if (is_same_file(path, model_.gguf().path())) return notice("/save: that is the model's file");
  const std::string json = chat_messages_json(conversation_.messages());
  std::FILE* file = std::fopen(path.c_str(), "w");
  bool good = file != nullptr && std::fwrite(json.data(), 1, json.size(), file) == json.size();
  good = (file != nullptr && std::fclose(file) == 0) && good;
  if (good)
    print_notice("saved {} to '{}'", turns(conversation_.n_turns()), printable(path, kPathBytes));
  else
    print_notice("cannot write '{}': {}", printable(path, kPathBytes), std::strerror(errno));
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

int answer_once(Chat& chat, const Model& model, const Options& options, std::string message) {
  refuse_hopeless_text(message, model.tokenizer(), model.context());
  const auto ignore = [](std::string_view) {};
  const int signal = options.json ? chat.answer(message, ignore) : chat.answer(message, print_piece);
  write_out(options.json ? generation_json(model, chat.last()) : "\n");
  flush_out();
  report_timings(model, chat.last());
  return signal != 0 ? stop_exit_code() : 0;
}

// The first Ctrl-C stops an answer; outside of an answer a signal ends the process (stop_signal.h).
int converse(Chat& chat) {
  LineReader reader("> ");
  if (reader.interactive()) notice("/help lists the commands; Ctrl-C stops an answer, Ctrl-D leaves");
  while (const std::optional<std::string> line = reader.read()) {
    if (line->empty()) continue;
    if (line->front() == '/') {
      if (!chat.command(*line)) return 0;
      continue;
    }
    const int signal = chat.answer(*line, print_piece);
    write_out("\n");
    flush_out();
    if (signal != 0 && signal != SIGINT) return stop_exit_code();
  }
  if (reader.interactive()) notice("");  // the end of the input (Ctrl-D) left the cursor behind the prompt
  return 0;
}

}  // namespace

int run_chat(std::span<const std::string> arguments) {
  Options options;
  if (!parse(arguments, &options)) return 0;
  if (!options.once && (options.input.given() || options.json))
    fail(ErrorCode::kUsage, "--prompt, --file and --json need --once");
  std::string message;
  if (options.once) message = read_text(options.input);
  // `echo hello | quern chat MODEL --once`: the newline is echo's.
  if (options.once && !options.input.given() && message.ends_with('\n')) message.pop_back();

  const auto model = Model::load(options.model, options.session.options(), notice);
  const ChatFormat& format = require_chat_format(options.chat_format, model->tokenizer().vocabulary());
  if (options.chat_format.empty()) print_notice("chat format: {} (override: --chat-format)", format.name);
  Chat chat(*model, format, options);
  return options.once ? answer_once(chat, *model, options, std::move(message)) : converse(chat);
}

}  // namespace quern
