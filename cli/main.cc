// quern: words on the command line -> calls. The table of commands, the one catch, the exit codes.
#include <signal.h>

#include <cstdlib>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/report.h"
#include "cli/stop_signal.h"
#include "cli/suggest.h"
#include "convert/convert.h"
#include "quant/error.h"
#include "quant/mapped_file.h"
#include "quant/output_file.h"

namespace quern {
namespace {

constexpr Command kCommands[] = {
    {"convert", "turn a checkpoint (safetensors) or a GGUF into one quantized GGUF file", run_convert},
    {"inspect", "show what a GGUF, a safetensors file or a checkpoint folder holds", run_inspect},
    {"run", "complete a text", run_run},
    {"chat", "talk with a model", run_chat},
    {"perplexity", "measure how well a model predicts a text", run_perplexity},
    {"bench", "measure prompt and generation speed", run_bench},
    {"tokenize", "show the token ids of a text or a conversation", run_tokenize},
    {"doctor", "show what this machine has and gives, and what quern chooses on it", run_doctor},
};

constexpr int kInternalError = 70;  // EX_SOFTWARE: a bug of ours, none of the codes that users act on

std::string help() {
  std::string text =
      "quern runs large language models of the Llama family on a laptop's CPU.\n"
      "\n"
      "Usage: quern COMMAND [options]\n"
      "\n"
      "Commands:\n";
  for (const Command& command : kCommands) text += fmt::format("  {:<12}{}\n", command.name, command.summary);
  text +=
      "\n"
      "`quern COMMAND --help` describes a command, with examples. `quern --version` prints the version.\n"
      "Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 usage, 2 malformed input,\n"
      "3 integrity or non-finite numbers, 4 memory or context, 5 input/output, 130 and 143 signals.\n"
      "\n"
      "Examples:\n"
      "  quern convert Mistral-7B-Instruct-v0.2 -o mistral.gguf --type q4_0\n"
      "  quern run mistral.gguf -p \"The capital of France is\" -n 32\n"
      "  quern chat mistral.gguf\n";
  return text;
}

int dispatch(const std::vector<std::string>& arguments) {
  if (arguments.empty()) {
    notice(help());
    return static_cast<int>(ErrorCode::kUsage);
  }
  const std::string& name = arguments.front();
  if (name == "--help" || name == "-h" || name == "help") {
    write_out(help());
    return 0;
  }
  if (name == "--version") {
    print_out("quern {}\n", QUERN_VERSION);
    return 0;
  }
  std::vector<std::string> names;
  for (const Command& command : kCommands) {
    if (command.name == name) return command.run(std::span(arguments).subspan(1));
    names.emplace_back(command.name);
  }
  fail(ErrorCode::kUsage, "unknown command '{}'{}; see quern --help", printable(name),
       suggestion(name, names));
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
  // Writing to a closed pipe or past a size limit is an error to report where it happens, not a signal.
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  // Where the OpenMP runtime gives up (no more threads to be had) it ends the process by exit().
  std::atexit([] { quern::remove_unfinished_outputs(); });
  quern::install_stop_signals();
  quern::install_sigbus_handler();
  return quern::guarded(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc));
}
