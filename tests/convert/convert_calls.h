// What the tests of convert() share: a call of it, its files read back, its errors, checkpoints that say the
// same.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "convert/convert.h"
#include "quant/gguf_reader.h"
#include "quant/mapped_file.h"
#include "quant/recipe.h"
#include "tests/support/checkpoints.h"
#include "tests/support/paths.h"
#include "tests/support/temp_folder.h"

namespace quern::test {

namespace fs = std::filesystem;

inline const std::string kData = test_data("");
inline const std::string kTiny = kData + "/tiny-mistral";
inline ConvertReport run(const std::string& source, const std::string& output, const std::string& type,
                         int n_threads = 2, const ConvertCallbacks& callbacks = {}) {
  ConvertOptions options;
  options.source = source;
  options.output = output;
  options.type = type;
  options.n_threads = n_threads;
  options.no_tokenizer = fs::is_directory(source) && !fs::exists(source + "/tokenizer.model");
  return convert(options, callbacks);
}

inline std::string name_of(const testing::TestParamInfo<Recipe>& info) {
  return std::string(info.param.name);
}

// A file and its reader.
struct Gguf {
  explicit Gguf(const std::string& path) : file(path), reader(file.bytes(), path) {}
  MappedFile file;
  GgufReader reader;

  std::string bytes_of(const std::string& tensor) const {
    const TensorView* view = reader.find_tensor(tensor);
    if (view == nullptr) throw std::runtime_error("no tensor " + tensor);
    return {reinterpret_cast<const char*>(view->data), view->n_bytes};
  }
};

inline std::optional<ErrorCode> error_code;  // of the last error_of

template <class Body>
std::string error_of(Body&& body) {
  error_code.reset();
  try {
    body();
  } catch (const Error& e) {
    error_code = e.code();
    return e.what();
  }
  return "no error";
}

// What Q and K become, written from formats.md 2.3 and not from convert/: see tests/support/checkpoints.cc.
class Twins : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TempFolder>();
    test::write_tied_twin(kTiny, tied());
    test::write_mistral_layout_twin(kTiny, mistral());
  }
  static void TearDownTestSuite() { folder_.reset(); }
  static std::string tied() { return folder_->file("tied"); }
  static std::string mistral() { return folder_->file("mistral"); }
  static inline std::unique_ptr<TempFolder> folder_;
};

}  // namespace quern::test
