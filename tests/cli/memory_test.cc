// Memory that is not there: refused when the model is loaded, before anything large is allocated, with what
// is needed, what is available, and the context that fits.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/cli/quern_cli.h"

namespace quern::test {
namespace {

constexpr double kMegabyte = 1e6;

// number: "1.56", unit: "GiB"
double bytes_of(double number, std::string_view unit) {
  return number * (unit == "GiB" ? 0x1p30 : unit == "MiB" ? 0x1p20 : unit == "KiB" ? 0x1p10 : 1);
}

struct Refusal {
  double needed, available;  // bytes
  uint64_t context;          // that would fit
};

// Empty when it is not the refusal of the plan: an allocation that fails later has another message.
std::optional<Refusal> refusal_of(const ProcessResult& result) {
  const size_t begin = result.err.find("error: not enough memory: ");
  if (result.exit_code != 4 || begin == std::string::npos) return std::nullopt;
  const std::string line = result.err.substr(begin, result.err.find('\n', begin) - begin);
  const size_t sum = line.rfind(" = ");
  if (sum == std::string::npos) return std::nullopt;
  double needed = 0, available = 0;
  char needed_unit[4] = "", available_unit[4] = "";
  unsigned long context = 0;
  int end = 0;
  std::sscanf(line.c_str() + sum, " = %lf %3[KMGiB] needed, %lf %3[KMGiB] available; --ctx %lu would fit%n",
              &needed, needed_unit, &available, available_unit, &context, &end);
  if (sum + static_cast<size_t>(end) != line.size()) return std::nullopt;
  return Refusal{bytes_of(needed, needed_unit), bytes_of(available, available_unit), context};
}

class MemoryLimit : public testing::Test {
 protected:
  void SetUp() override {
    if (kSanitized) GTEST_SKIP() << "a sanitizer takes memory of its own, and an address space without limit";
  }

  // The cache of tiny-mistral takes 1536 bytes a position.
  static constexpr uint64_t kContext = 1000000;

  std::vector<std::string> run_with_context(uint64_t context, int n_threads) const {
    return {"run",    model_,
            "--ids",  "1,5,9",
            "-n",     "2",
            "--ctx",  std::to_string(context),
            "-t",     std::to_string(n_threads),
            "--temp", "0"};
  }

  // `limit_lines` of shell leave `limit` bytes or less.
  void expect_refusal_and_fit(const std::string& limit_lines, double limit) const {
    for (const int n_threads : {1, 8}) {
      const ProcessResult refused = quern_after(limit_lines, run_with_context(kContext, n_threads));
      const auto refusal = refusal_of(refused);
      ASSERT_TRUE(refusal) << describe(refused);
      EXPECT_GT(refusal->needed, kContext * 1536.0);
      EXPECT_LE(refusal->available, 1.01 * limit);
      EXPECT_GT(refusal->available, 0.8 * limit);
      EXPECT_LT(refused.peak_rss_bytes, 60 * kMegabyte) << "something large was allocated before";
      EXPECT_EQ(refused.out, "");

      const ProcessResult fits = quern_after(limit_lines, run_with_context(refusal->context, n_threads));
      EXPECT_EQ(fits.exit_code, 0) << describe(fits);
      const ProcessResult more =
          quern_after(limit_lines, run_with_context(refusal->context + refusal->context / 50, n_threads));
      EXPECT_TRUE(refusal_of(more)) << describe(more);
    }
  }

  TempFolder folder_;
  std::string model_ = converted(folder_, "tiny-mistral", "q4_0");
};

TEST_F(MemoryLimit, OfTheAddressSpaceIsKept) {
  expect_refusal_and_fit("ulimit -v 1000000", 1000000 * 1024.0);
}

// A memory group of this test's own, gone at the end; there are two kinds, of which a system has one.
class MemoryGroup {
 public:
  explicit MemoryGroup(uint64_t limit) {
    for (const auto& [mount, file] :
         {std::pair("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), {"/sys/fs/cgroup", "memory.max"}}) {
      const std::filesystem::path folder =
          std::filesystem::path(mount) / fmt::format("quern-test-{}", getpid());
      std::error_code error;
      if (!std::filesystem::create_directory(folder, error)) continue;
      folder_ = folder;
      if (std::filesystem::exists(folder / file) && (std::ofstream(folder / file) << limit << std::flush))
        return;
      remove();
    }
  }
  ~MemoryGroup() { remove(); }
  MemoryGroup(const MemoryGroup&) = delete;
  MemoryGroup& operator=(const MemoryGroup&) = delete;

  // Empty: this process may not make one.
  const std::filesystem::path& folder() const { return folder_; }

 private:
  void remove() {
    std::error_code ignored;
    if (!folder_.empty()) std::filesystem::remove(folder_, ignored);
    folder_.clear();
  }
  std::filesystem::path folder_;
};

TEST_F(MemoryLimit, OfAGroupIsKept) {
  constexpr uint64_t kLimit = 400 << 20;
  const MemoryGroup group(kLimit);
  if (group.folder().empty()) GTEST_SKIP() << "this process may not make a memory cgroup";
  expect_refusal_and_fit("echo $$ > " + (group.folder() / "cgroup.procs").string(), kLimit);
}

TEST_F(MemoryLimit, ThatTheWeightsAloneExceedNamesNoContext) {
  const std::string big = folder_.file("big.gguf");
  const ProcessResult made =
      quern({"convert", write_big_checkpoint(folder_, 120), "-o", big, "--no-tokenizer", "--type", "bf16"});
  ASSERT_EQ(made.exit_code, 0) << describe(made);
  const ProcessResult result =
      quern_after("ulimit -v 260000", {"run", big, "--ids", "1", "-n", "1", "-t", "1"});
  EXPECT_EQ(result.exit_code, 4) << describe(result);
  EXPECT_NE(result.err.find("no context fits; a smaller format (convert --type) might"), std::string::npos)
      << describe(result);
}

// A file of panels that a group has no room for: refused, and run from the disk for who asks for that.
TEST_F(MemoryLimit, LargerThanMemoryRunsAMappedFileWhenAskedTo) {
  constexpr uint64_t kLimit = 48 << 20;
  const MemoryGroup group(kLimit);
  if (group.folder().empty()) GTEST_SKIP() << "this process may not make a memory cgroup";
  const std::string big = folder_.file("big.gguf");
  const ProcessResult made = quern({"convert", write_big_checkpoint(folder_, 120), "-o", big,
                                    "--no-tokenizer", "--type", "q8_0", "--layout", "p16"});
  ASSERT_EQ(made.exit_code, 0) << describe(made);
  const std::string limit_line = "echo $$ > " + (group.folder() / "cgroup.procs").string();
  std::vector<std::string> command = {"run", big, "--ids", "1,2", "-n",     "2",
                                      "-t",  "1", "--ctx", "64",  "--temp", "0"};
  const ProcessResult expected = quern(command), refused = quern_after(limit_line, command);
  EXPECT_EQ(refused.exit_code, 4) << describe(refused);
  EXPECT_NE(refused.err.find("--larger-than-memory runs this file from the disk"), std::string::npos)
      << describe(refused);
  command.emplace_back("--larger-than-memory");
  const ProcessResult paged = quern_after(limit_line, command);
  EXPECT_EQ(paged.exit_code, 0) << describe(paged);
  EXPECT_EQ(paged.out, expected.out);
  EXPECT_NE(paged.err.find("warning: larger than memory: "), std::string::npos) << describe(paged);
  EXPECT_EQ(quern(command).err.find("larger than memory"), std::string::npos);
}

TEST(LockedMemory, IsHadOrRefusedWithTheLimit) {
  const TempFolder folder;
  const std::string model = converted(folder, "stories260k", "q8_0");
  EXPECT_EQ(quern({"run", model, "-p", "a", "--mlock", "--larger-than-memory"}).exit_code, 1);
  if (kSanitized) GTEST_SKIP() << "a sanitizer locks no memory";
  const std::vector<std::string> command = {"run", model, "-p", "a", "-n", "2", "--temp", "0"};
  std::vector<std::string> locked = command;
  locked.emplace_back("--mlock");
  // Root may lock beyond the limit, unless it goes without that right.
  const ProcessResult refused = quern_after(
      "ulimit -l 64\n[ $(id -u) != 0 ] || exec setpriv --bounding-set=-ipc_lock -- \"$@\"", locked);
  EXPECT_EQ(refused.exit_code, 4) << describe(refused);
  EXPECT_NE(refused.err.find("--mlock: this process may lock 64.00 KiB of memory"), std::string::npos)
      << describe(refused);
  const ProcessResult had = quern(locked);
  if (had.exit_code == 0) {
    EXPECT_EQ(had.out, quern(command).out);
  } else {
    EXPECT_EQ(had.exit_code, 4) << describe(had);  // the limit here is less than the model
  }
}

TEST(StateMemory, IsANumberOfBytesOrNone) {
  const TempFolder folder;
  const std::string model = converted(folder, "stories260k", "q8_0");
  for (const auto& [size, code] : {std::pair("0", 0), {"2MiB", 0}, {"12x", 1}, {"-1", 1}}) {
    const ProcessResult result = quern({"run", model, "-p", "a", "-n", "1", "--state-ram", size});
    EXPECT_EQ(result.exit_code, code) << describe(result);
  }
}

}  // namespace
}  // namespace quern::test
