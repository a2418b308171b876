#include "quant/output_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include "quant/error.h"
#include "tests/quant/gguf_bytes.h"
#include "tests/support/temp_folder.h"

namespace quern {
namespace {

using test::expect_error;
using test::read_file;
using test::TempFolder;

using Names = std::vector<std::string>;

void write(OutputFile& file, uint64_t offset, std::string_view text) {
  file.write_at(offset, {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

void replace(const std::string& target, std::string_view text,
             OutputFile::Temporary temporary = OutputFile::Temporary::kNameless) {
  OutputFile file(target, text.size(), true, temporary);
  write(file, 0, text);
  file.commit();
}

// With and without a name until it is whole. Where the file system of the test's folder has no files without
// a name, both are the same.
class OutputFileBothWays : public testing::TestWithParam<OutputFile::Temporary> {};
INSTANTIATE_TEST_SUITE_P(Ways, OutputFileBothWays,
                         testing::Values(OutputFile::Temporary::kNameless, OutputFile::Temporary::kNamed),
                         [](const auto& way) {
                           return way.param == OutputFile::Temporary::kNamed ? "named" : "nameless";
                         });

TEST_P(OutputFileBothWays, AppearsWholeAtCommitAndNotBefore) {
  const TempFolder folder;
  const std::string target = folder.file("model.gguf");
  OutputFile file(target, 10, false, GetParam());
  write(file, 5, "world");
  write(file, 0, "hello");
  for (const std::string& temporary : folder.names())
    EXPECT_TRUE(temporary.starts_with("model.gguf.") && temporary.ends_with(".tmp")) << temporary;
  double seconds = -1;
  file.commit(&seconds);
  EXPECT_GE(seconds, 0);
  EXPECT_EQ(read_file(target), "helloworld");
  EXPECT_EQ(folder.names(), Names{"model.gguf"});
}

TEST(OutputFile, LeavesUnwrittenBytesZero) {
  const TempFolder folder;
  OutputFile file(folder.file("a"), 6, false);
  write(file, 4, "x");
  file.commit();
  EXPECT_EQ(read_file(folder.file("a")), std::string("\0\0\0\0x\0", 6));
}

TEST(OutputFile, MayBeEmpty) {
  const TempFolder folder;
  OutputFile(folder.file("a"), 0, false).commit();
  EXPECT_EQ(read_file(folder.file("a")), "");
}

TEST(OutputFile, HasNoNameUntilItIsWhole) {
  const TempFolder folder;
  const int fd = ::open(folder.path().c_str(), O_RDWR | O_TMPFILE, 0600);
  if (fd < 0) GTEST_SKIP() << "this file system has no files without a name";
  ::close(fd);
  const OutputFile file(folder.file("a"), 1 << 20, false);
  EXPECT_EQ(folder.names(), Names{});
}

TEST(OutputFile, ReservesItsSpaceFirst) {
  const TempFolder folder;
  const OutputFile file(folder.file("a"), 1 << 20, false, OutputFile::Temporary::kNamed);
  EXPECT_EQ(std::filesystem::file_size(folder.path() / folder.names().at(0)), 1u << 20);
}

TEST(OutputFile, FindsTheTemporaryFilesOfATarget) {
  const TempFolder folder;
  const std::string target = folder.file("model.gguf"), left = target + ".0123456789abcdef.tmp";
  EXPECT_EQ(temporary_files_of(target), Names{});
  folder.write("model.gguf.0123456789abcdef.tmp", "");
  for (const char* other : {"model.gguf", "model.gguf.tmp", "model.gguf.0123456789abcdeg.tmp",
                            "model.gguf.0123456789abcdef.tmp2", "other.gguf.0123456789abcdef.tmp",
                            "model.gguf-0123456789abcdef.tmp", "model.gguf.00123456789abcdef.tmp"})
    folder.write(other, "");
  EXPECT_EQ(temporary_files_of(target), Names{left});
  const OutputFile file(target, 8, true, OutputFile::Temporary::kNamed);
  EXPECT_EQ(temporary_files_of(target).size(), 2u);
  const std::string long_name = folder.file(std::string(250, 'x'));
  const OutputFile long_file(long_name, 8, false, OutputFile::Temporary::kNamed);
  EXPECT_EQ(temporary_files_of(long_name).size(), 1u);
  EXPECT_EQ(temporary_files_of("/nowhere/at/all"), Names{});
}

TEST_P(OutputFileBothWays, VanishesWhenItIsNotCommitted) {
  const TempFolder folder;
  const std::string target = folder.write("a", "old");
  {
    OutputFile file(target, 3, true, GetParam());
    write(file, 0, "new");
    EXPECT_EQ(read_file(target), "old");
  }
  EXPECT_EQ(folder.names(), Names{"a"});
  EXPECT_EQ(read_file(target), "old");
}

TEST_P(OutputFileBothWays, ReplacesATargetOnlyWhenAsked) {
  const TempFolder folder;
  const std::string target = folder.write("a", "old");
  expect_error(ErrorCode::kUsage, target + ": exists already",
               [&] { OutputFile file(target, 3, false, GetParam()); });
  EXPECT_EQ(read_file(target), "old");
  replace(target, "newer", GetParam());
  EXPECT_EQ(read_file(target), "newer");
  EXPECT_EQ(folder.names(), Names{"a"});
}

TEST_P(OutputFileBothWays, DoesNotReplaceATargetThatAppearedMeanwhile) {
  const TempFolder folder;
  const std::string target = folder.file("a");
  OutputFile file(target, 3, false, GetParam());
  write(file, 0, "new");
  folder.write("a", "somebody else's");
  expect_error(ErrorCode::kIo, target + ": somebody else has created it meanwhile", [&] { file.commit(); });
  EXPECT_EQ(read_file(target), "somebody else's");
  EXPECT_EQ(folder.names(), Names{"a"});
}

TEST_P(OutputFileBothWays, ReplacingLeavesReadersOfTheOldFileAlone) {
  const TempFolder folder;
  const std::string target = folder.write("a", "old");
  const std::string other_name = folder.file("b");
  std::filesystem::create_hard_link(target, other_name);  // stands for an open mapping: the same inode
  replace(target, "new", GetParam());
  EXPECT_EQ(read_file(target), "new");
  EXPECT_EQ(read_file(other_name), "old");
}

TEST(OutputFile, RefusesTargetsThatAreNotRegularFiles) {
  const TempFolder folder;
  std::filesystem::create_directory(folder.file("folder"));
  ASSERT_EQ(::mkfifo(folder.file("pipe").c_str(), 0600), 0);
  folder.write("a", "old");
  std::filesystem::create_symlink("a", folder.file("link"));
  std::filesystem::create_symlink("absent", folder.file("dangling"));
  const Names before = folder.names();
  const auto refuses = [&](const std::string& target, std::string_view part) {
    expect_error(ErrorCode::kUsage, part, [&] { OutputFile file(target, 3, true); });
  };
  refuses(folder.file("folder"), "is a folder");
  refuses(folder.file("folder") + "/", "does not name an output file");
  refuses(folder.path().string() + "/..", "does not name an output file");
  refuses("", "does not name an output file");
  refuses(folder.file("pipe"), "is not a regular file");
  refuses("/dev/null", "is not a regular file");
  refuses(folder.file("link"), "is a symbolic link");
  refuses(folder.file("dangling"), "is a symbolic link");
  EXPECT_EQ(folder.names(), before);
  EXPECT_EQ(read_file(folder.file("a")), "old");
}

TEST(OutputFile, NamesATargetWhoseFolderIsMissing) {
  const TempFolder folder;
  const std::string target = folder.file("missing/a");
  expect_error(ErrorCode::kIo,
               target + ": cannot create: No such file or directory; its folder is not there: " +
                   folder.file("missing"),
               [&] { OutputFile file(target, 3, false); });
}

TEST_P(OutputFileBothWays, TakesNamesAsLongAsTheFileSystemDoes) {
  const TempFolder folder;
  const std::string name(255, 'n');
  replace(folder.file(name), "text", GetParam());
  EXPECT_EQ(folder.names(), Names{name});
}

TEST(OutputFile, TakesPathsWithoutAFolder) {
  const TempFolder folder;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  replace("plain", "text");
  std::filesystem::current_path(before);
  EXPECT_EQ(read_file(folder.file("plain")), "text");
}

TEST(OutputFile, SaysWhatIsNeededAndAvailableWhenTheDiskIsTooSmall) {
  const TempFolder folder;
  const uint64_t size = uint64_t{1} << 60;
  expect_error(ErrorCode::kIo, "no space left on the disk: 1152921504606846976 bytes needed, ",
               [&] { OutputFile file(folder.file("a"), size, false); });
  expect_error(ErrorCode::kIo, "more than a file may have here",
               [&] { OutputFile file(folder.file("a"), UINT64_MAX, false); });
  EXPECT_EQ(folder.names(), Names{});
}

// Files of this process may have `bytes` at most, as with `ulimit -f`, until the end of the scope.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(uint64_t bytes) {
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit before_{};
  void (*handler_)(int) = nullptr;
};

TEST(OutputFile, ReportsTheFileSizeLimitBeforeAnyWork) {
  const TempFolder folder;
  const std::string target = folder.write("a", "old");
  {
    const FileSizeLimit limit(1 << 20);
    expect_error(ErrorCode::kIo, target + ": 2097152 bytes are more than a file may have here",
                 [&] { OutputFile file(target, 2 << 20, true); });
  }
  EXPECT_EQ(folder.names(), Names{"a"});
  EXPECT_EQ(read_file(target), "old");
}

TEST_P(OutputFileBothWays, AFailedWriteKeepsTheOldTarget) {
  const TempFolder folder;
  const std::string target = folder.write("a", "old");
  {
    OutputFile file(target, 2 << 20, true, GetParam());
    const FileSizeLimit limit(1 << 20);
    // Begins below the limit: the system takes a part, then refuses the rest.
    const std::vector<uint8_t> bytes(1 << 20, 7);
    expect_error(ErrorCode::kIo, "more than a file may have here", [&] { file.write_at(1 << 19, bytes); });
  }
  EXPECT_EQ(folder.names(), Names{"a"});
  EXPECT_EQ(read_file(target), "old");
}

TEST_P(OutputFileBothWays, AFailedRenameLeavesNoTemporaryFile) {
  const TempFolder folder;
  const std::string target = folder.file("a");
  OutputFile file(target, 3, true, GetParam());
  std::filesystem::create_directories(target + "/full");  // a folder came in between
  expect_error(ErrorCode::kIo, target + ": cannot rename to it", [&] { file.commit(); });
  EXPECT_EQ(folder.names(), Names{"a"});
}

TEST_P(OutputFileBothWays, HonoursTheUmask) {
  const TempFolder folder;
  const mode_t before = ::umask(027);
  replace(folder.file("a"), "text", GetParam());
  ::umask(before);
  struct stat status {};
  ASSERT_EQ(::stat(folder.file("a").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0640u);
}

TEST(OutputFile, ASignalHandlerCanRemoveWhatIsUnfinished) {
  const TempFolder folder;
  remove_unfinished_outputs();  // with nothing to do
  {
    const OutputFile first(folder.file("a"), 8, false, OutputFile::Temporary::kNamed);
    const OutputFile second(folder.file("b"), 8, false, OutputFile::Temporary::kNamed);
    OutputFile(folder.file("c"), 8, false).commit();
    EXPECT_EQ(folder.names().size(), 3u);
    remove_unfinished_outputs();
    EXPECT_EQ(folder.names(), Names{"c"});
  }
  remove_unfinished_outputs();
  EXPECT_EQ(folder.names(), Names{"c"});
}

TEST(OutputFile, ASignalHandlerRemovesWhatItWasTold) {
  const TempFolder folder;
  const std::string told = folder.write("told", ""), kept = folder.write("kept", "");
  { const RemovedOnSignal before(kept); }
  const RemovedOnSignal removed(told);
  remove_unfinished_outputs();
  EXPECT_EQ(folder.names(), Names{"kept"});
}

TEST_P(OutputFileBothWays, AKilledProcessLeavesTheOldTarget) {
  const TempFolder folder;
  const std::string target = folder.write("a", "old");
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    OutputFile file(target, 3, true, GetParam());
    write(file, 0, "new");
    ::raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(read_file(target), "old");
  replace(target, "again", GetParam());  // what the dead process left is not in the way
  EXPECT_EQ(read_file(target), "again");
}

TEST(OutputFileDeathTest, RefusesToWriteOutsideItsSize) {
  const TempFolder folder;
  OutputFile file(folder.file("a"), 4, false);
  EXPECT_DEATH(write(file, 2, "abc"), "internal error");
  EXPECT_DEATH(write(file, UINT64_MAX, "a"), "internal error");
}

}  // namespace
}  // namespace quern
