// The built binary, and the bundled checkpoints turned into files, for end-to-end tests.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tests/support/json.h"
#include "tests/support/paths.h"
#include "tests/support/subprocess.h"
#include "tests/support/temp_folder.h"

namespace quern::test {

// A sanitizer build is slower and takes more memory; limits on either are widened or dropped there.
constexpr bool kSanitized = QUERN_SANITIZED;
constexpr double kSlowdown = kSanitized ? 5 : 1;

// {binary, arguments...}
std::vector<std::string> quern_command(const std::vector<std::string>& arguments);
// What quern runs with in tests: findings of the sanitizers end it with exit code 99, which quern never uses.
ProcessOptions with_test_environment(ProcessOptions options = {});
// Runs it to the end.
ProcessResult quern(const std::vector<std::string>& arguments, const ProcessOptions& options = {});
// The same, after lines of shell such as "ulimit -f 100".
ProcessResult quern_after(const std::string& shell_lines, const std::vector<std::string>& arguments);

// Whether the memory is there that measuring the read bandwidth takes (1.25 GiB), for two tests at the same
// time; one that needs a measurement is skipped otherwise.
bool has_memory_to_probe();

// Converts a checkpoint of tests/data into `folder`, checks that it worked, returns the GGUF's path.
std::string converted(const TempFolder& folder, std::string_view checkpoint, std::string_view type,
                      const std::vector<std::string>& more_options = {});

// The entry of golden/logits.json for a model.
Json golden_model(std::string_view name);

// Writes a random BF16 llama checkpoint of about `megabytes` into `folder`/big, without a tokenizer: large
// enough that a signal arrives in the middle of its conversion. Returns its path.
std::string write_big_checkpoint(const TempFolder& folder, size_t megabytes);

// "1,5,9"
std::string join_ids(const std::vector<int>& ids);

// How many lines of `text` begin with `prefix`.
size_t count_lines_with_prefix(std::string_view text, std::string_view prefix);

// "exit 2, signal 0, 0.01 s\nstdout: ...\nstderr: ..." for a failure's message.
std::string describe(const ProcessResult& result);

}  // namespace quern::test
