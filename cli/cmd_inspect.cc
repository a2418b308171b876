// quern inspect: what a file or a folder holds.
#include "cli/arguments.h"
#include "cli/command.h"
#include "cli/inspection.h"
#include "cli/report.h"

namespace quern {

int run_inspect(std::span<const std::string> arguments) {
  std::string path;
  bool json = false;
  Arguments parser(
      "inspect",
      "Shows header, metadata, tensors and sizes of a GGUF file, a safetensors file or a checkpoint "
      "folder.",
      "  quern inspect model.gguf\n"
      "  quern inspect Mistral-7B-Instruct-v0.2 --json");
  parser.positional("PATH", "A GGUF file, a safetensors file or a checkpoint folder", &path);
  parser.flag("--json", "Print one object", &json);
  if (!parser.parse(arguments)) return 0;
  const Inspection inspection = inspect(path, notice);
  write_out(json ? render_json(inspection) : render_text(inspection));
  return 0;
}

}  // namespace quern
