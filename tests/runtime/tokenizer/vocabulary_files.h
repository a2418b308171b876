// Vocabularies of the field: those of tests/data/vocabularies.tar.xz, and those that
// tests/fetch_vocabularies.sh puts into the folder that QUERN_VOCABULARIES names.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "runtime/tokenizer/tokenizer.h"

namespace quern::test {

// Where the file is; none: it is not committed, and QUERN_VOCABULARIES does not name a folder with it.
std::optional<std::string> find_vocabulary_file(const std::string& name);
// For a test's GTEST_SKIP().
std::string how_to_get(const std::string& name);

// From a file of any kind that convert/tokenizer_file.h knows. `pre_tokenizer`: instead of the file's own.
Vocabulary read_vocabulary_of(const std::string& path, const std::string& pre_tokenizer = {});
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path, const std::string& pre_tokenizer = {});
// The vocabulary as it comes back from a GGUF file that it was written to.
Vocabulary through_gguf(const Vocabulary& vocabulary);

std::string read_file(const std::string& path);

}  // namespace quern::test
