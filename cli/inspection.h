// What a model file or a checkpoint folder holds, as `inspect` shows it. A model that cannot run may still be
// looked at, and says why it cannot.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quant/error.h"
#include "quant/tensor_view.h"
#include "quant/zero_tail.h"

namespace quern {

struct Inspection {
  // One value of the header or of the metadata.
  struct Entry {
    std::string key;
    std::string type;  // "u32", "string[32000]"; empty where the format has none
    std::string text;  // fit to print; long texts and lists are cut
    std::string json;  // a JSON value; lists are cut
  };
  struct Tensor {
    std::string name;
    Shape shape;
    std::string_view format;  // "Q4_0"
    uint64_t n_elements = 0;
    uint64_t bytes = 0;
    uint64_t offset = 0;  // from the start of its file
    std::string file;     // where there are several: checkpoint folders, split GGUFs
    TensorLayout layout = TensorLayout::kRows;
  };
  struct FormatTotal {
    std::string_view format;
    uint64_t n_tensors = 0, n_elements = 0, bytes = 0;
  };

  std::string path;
  std::string kind;  // "GGUF", "safetensors", "checkpoint"
  std::vector<Entry> header, metadata;
  std::vector<Tensor> tensors;
  // Of a GGUF: why quern does not run it; empty: it does. A part that is shown alone has nothing here.
  std::optional<std::string> runs_not;
  std::string ids_only;              // why one that runs takes and gives token ids only; empty: text too
  std::vector<ZeroTail> zero_tails;  // tensors that end in zeros, as after an incomplete download

  std::vector<FormatTotal> totals() const;  // by format, in order of first appearance
  FormatTotal total() const;                // of all formats
};

// A folder is a checkpoint, *.safetensors a safetensors file, everything else a GGUF. Throws like the readers
// of these formats.
Inspection inspect(const std::string& path, const Notice& notice);

double bits_per_weight(const Inspection::FormatTotal& total);  // 0 when there are no weights

std::string render_text(const Inspection& inspection);
std::string render_json(const Inspection& inspection);

}  // namespace quern
