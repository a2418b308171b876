// quern: words on the command line -> calls. The table of commands, the one catch, the exit codes.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iterator>
#include <new>
#include <string>
#include <vector>

#include "cli/arguments.h"
#include "cli/build_info.h"
#include "cli/command.h"
#include "cli/foreign_options.h"
#include "cli/report.h"
#include "cli/suggest.h"
#include "kernels/dispatch.h"
#include "quant/error.h"
#include "quant/machine/cpu_features.h"
#include "quant/machine/stop_signal.h"
#include "quant/output_file.h"
#include "quant/shell_word.h"
#include "quant/utf8.h"

namespace quern {
namespace {

constexpr Command kCommands[] = {
    {"convert", "turn a checkpoint (safetensors) or a GGUF into one quantized GGUF file", run_convert},
    {"inspect", "show what a GGUF, a safetensors file or a checkpoint folder holds", run_inspect},
    {"run", "complete a text", run_run},
    {"chat", "talk with a model", run_chat},
    {"serve", "answer over HTTP, many at a time (OpenAI's and Anthropic's protocols)", run_serve},
    {"imatrix", "measure on a text which columns count, for convert --imatrix", run_imatrix},
    {"perplexity", "measure how well a model predicts a text", run_perplexity},
    {"bench", "measure prompt and generation speed", run_bench},
    {"tokenize", "show the token ids of a text or a conversation", run_tokenize},
    {"doctor", "show what this machine has and gives, and what quern chooses on it", run_doctor},
};

constexpr int kInternalError = 70;  // EX_SOFTWARE: a bug of ours, none of the codes that users act on

std::vector<CommandSummary> summaries() {
  std::vector<CommandSummary> all;
  for (const Command& command : kCommands) all.push_back({command.name, command.summary});
  return all;
}

const Command* find_command(std::string_view name) {
  for (const Command& command : kCommands)
    if (command.name == name) return &command;
  return nullptr;
}

std::string help() {
  std::string text =
      "quern runs large language models on a laptop's CPU.\n"
      "\n"
      "Usage: quern COMMAND [options]\n"
      "\n"
      "Commands:\n";
  const size_t width = stdout_width(kHelpWidth);
  for (const Command& command : kCommands)
    text += wrap(fmt::format("  {:<12}{}", command.name, command.summary), width, 14) + "\n";
  text +=
      "\n"
      "`quern help COMMAND` describes a command, with examples. `quern version` prints version and build, "
      "`quern completions bash|zsh|fish` what a shell needs to complete options; `quern man COMMAND | man -l "
      "-` "
      "is a command's manual page.\n"
      "Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 usage, 2 malformed input, "
      "3 integrity or non-finite numbers, 4 memory or context, 5 input/output, 70 a fault of quern's own, "
      "130 and 143 signals.\n";
  // Commands stay whole, so that they can be copied.
  return wrap(text, width, 0) +
         "\nExamples:\n"
         "  quern convert Mistral-7B-Instruct-v0.2 -o mistral.gguf --type q4_0\n"
         "  quern run mistral.gguf -p \"The capital of France is\" -n 32\n"
         "  quern chat mistral.gguf\n";
}

std::string version() {
  std::string sets;
  for (const KernelSetRow& row : kernel_sets())
    sets += fmt::format("{}{}{}", sets.empty() ? "" : ", ", row.set->name,
                        row.supported(cpu_features()) ? "" : " (not on this CPU)");
  return fmt::format("quern {}\ncommit: {}\ncompiler: {}\nkernels: {}\n", QUERN_VERSION, kBuildCommit,
                     kBuildCompiler, sets);
}

CommandTable table_of(const Command& command) {
  CommandTable table;
  const Arguments::Describing describing(&table);
  command.run({});
  return table;
}

// What the build installs beside the program: `quern completions SHELL`, `quern man [COMMAND]`.
std::string completions(const std::vector<std::string>& arguments) {
  std::vector<CommandTable> tables;
  for (const Command& command : kCommands) tables.push_back(table_of(command));
  std::string text;
  if (arguments.size() == 2) text = render_completions(arguments[1], tables, summaries());
  if (text.empty()) fail(ErrorCode::kUsage, "expected: quern completions bash, zsh or fish");
  return text;
}

// Commands without a row.
constexpr std::string_view kOwnWords[] = {"help", "version", "completions", "man"};

bool is_own_word(std::string_view name) {
  return std::find(std::begin(kOwnWords), std::end(kOwnWords), name) != std::end(kOwnWords);
}

[[noreturn]] void refuse_command(std::string_view name) {
  if (name.starts_with('-'))
    fail(ErrorCode::kUsage,
         "'{}' stands where a command belongs: quern chat MODEL, quern run MODEL -p TEXT, ...; see quern "
         "--help",
         printable(name));
  if (const std::string_view advice = advice_for_command(name); !advice.empty())
    fail(ErrorCode::kUsage, "unknown command '{}': {}; see quern --help", printable(name), advice);
  std::vector<std::string> names(std::begin(kOwnWords), std::end(kOwnWords));
  for (const Command& command : kCommands) names.emplace_back(command.name);
  std::error_code ignored;
  if (std::filesystem::exists(name, ignored))
    fail(ErrorCode::kUsage, "'{}' is a file, not a command: `quern chat {}` talks with a model",
         printable(name, kPathBytes), shell_word(name));
  fail(ErrorCode::kUsage, "unknown command '{}'{}; see quern --help", printable(name),
       suggestion(lower_ascii(name), names));
}

std::string man(const std::vector<std::string>& arguments) {
  if (arguments.size() < 2 || is_own_word(arguments[1])) return render_main_man(summaries(), QUERN_VERSION);
  const Command* command = find_command(arguments[1]);
  if (command == nullptr) refuse_command(arguments[1]);
  return render_man(table_of(*command), QUERN_VERSION);
}

int dispatch(const std::vector<std::string>& arguments) {
  if (arguments.empty()) {
    notice(help());
    return static_cast<int>(ErrorCode::kUsage);
  }
  const std::string& name = arguments.front();
  if (const Command* command = find_command(name)) return command->run(std::span(arguments).subspan(1));
  const bool takes_a_word = name == "help" || name == "man" || name == "completions";
  if (const size_t n = takes_a_word ? 2 : 1; is_own_word(name) && arguments.size() > n)
    fail(ErrorCode::kUsage, "unexpected argument '{}' behind '{}'; see quern --help", printable(arguments[n]),
         printable(arguments[n - 1]));
  if (name == "help" && arguments.size() > 1 && !is_own_word(arguments[1])) {
    const Command* command = find_command(arguments[1]);
    if (command == nullptr) refuse_command(arguments[1]);
    const std::string flag = "--help";
    return command->run({&flag, 1});
  }
  if (name == "--help" || name == "-h" || name == "help")
    write_out(help());
  else if (name == "--version" || name == "-V" || name == "version")
    write_out(version());
  else if (name == "completions")
    write_out(completions(arguments));
  else if (name == "man")
    write_out(man(arguments));
  else
    refuse_command(name);
  return 0;
}

// A file that is opened while one of the descriptors 0 to 2 is closed gets its number, and then what is
// printed there lands in the file. Nothing else is done before this.
void open_standard_descriptors() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF) continue;
    if (open("/dev/null", O_RDWR) != fd) std::abort();  // nothing could be said about it
  }
}

int complain(int exit_code, std::string_view message) {
  print_notice("error: {}", message);
  return exit_code;
}

// The one catch.
int guarded(const std::vector<std::string>& arguments) {
  try {
    const int exit_code = dispatch(arguments);
    flush_out();
    return exit_code;
  } catch (const Error& error) {
    return complain(static_cast<int>(error.code()), error.what());
  } catch (const OutputClosed&) {
    return 0;
  } catch (const Interrupted&) {
    return stop_exit_code();
  } catch (const std::bad_alloc&) {
    return complain(static_cast<int>(ErrorCode::kResource), "out of memory");
  } catch (const std::exception& error) {
    return complain(kInternalError, fmt::format("internal: {}; please report this", error.what()));
  }
}

}  // namespace
}  // namespace quern

int main(int argc, char** argv) {
  quern::open_standard_descriptors();
  quern::ignore_write_signals();
  // Where the OpenMP runtime gives up (no more threads to be had) it ends the process by exit().
  std::atexit([] { quern::remove_unfinished_outputs(); });
  quern::install_stop_signals();
  quern::install_sigbus_handler();
  return quern::guarded(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc));
}
