#include "quant/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <utility>

#include "quant/error.h"
#include "quant/machine/stop_signal.h"
#include "quant/output_file.h"
#include "tests/quant/gguf_bytes.h"
#include "tests/support/temp_folder.h"

namespace quern {
namespace {

using test::expect_error;
using test::TempFolder;

std::string content(const MappedFile& file) { return {file.bytes().begin(), file.bytes().end()}; }

std::string numbered_bytes(size_t n) {
  std::string out(n, '\0');
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<char>(i * 31 + i / 4096);
  return out;
}

// Mapped and copied behave alike.
class MappedFileBothWays : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Ways, MappedFileBothWays, testing::Bool(),
                         [](const auto& way) { return way.param ? "Mapped" : "Copied"; });

TEST_P(MappedFileBothWays, HoldsTheFilesBytes) {
  const TempFolder folder;
  for (const size_t size : {size_t{1}, size_t{4095}, size_t{4096}, size_t{300'001}}) {
    const std::string expected = numbered_bytes(size);
    const MappedFile file(folder.write("a", expected), GetParam());
    EXPECT_EQ(file.is_mapped(), GetParam());
    EXPECT_EQ(content(file), expected);
  }
}

TEST_P(MappedFileBothWays, GivesAnEmptySpanForAnEmptyFile) {
  const TempFolder folder;
  const MappedFile file(folder.write("empty", ""), GetParam());
  EXPECT_TRUE(file.bytes().empty());
}

TEST_P(MappedFileBothWays, HintsDoNotChangeTheContents) {
  const TempFolder folder;
  const std::string expected = numbered_bytes(5 * 4096 + 7);
  const MappedFile file(folder.write("a", expected), GetParam());
  for (const uint64_t begin : {0, 1, 4095, 4096, 9000, 5 * 4096 + 6, 5 * 4096 + 7, 1 << 20}) {
    for (const uint64_t size : {uint64_t{0}, uint64_t{1}, uint64_t{8192}, UINT64_MAX}) {
      file.use_huge_pages();
      file.will_need(begin, size);
      file.done_with(begin, size);
      ASSERT_EQ(content(file), expected) << begin << " " << size;
    }
  }
}

TEST_P(MappedFileBothWays, SeemsInMemoryOnceItHasBeenRead) {
  const TempFolder folder;
  const std::string expected = numbered_bytes(5 << 20);
  const MappedFile file(folder.write("a", expected), GetParam());
  ASSERT_EQ(content(file), expected);
  for (const uint64_t begin : {0, 1, 4096, 3 << 20, (5 << 20) - 1, 5 << 20, 1 << 30})
    for (const uint64_t size : {uint64_t{0}, uint64_t{1}, uint64_t{3} << 20, UINT64_MAX})
      EXPECT_TRUE(file.seems_in_memory(begin, size)) << begin << " " << size;
}

TEST_P(MappedFileBothWays, MovesItsBytes) {
  const TempFolder folder;
  MappedFile first(folder.write("a", "alpha"), GetParam());
  MappedFile second(std::move(first));
  EXPECT_EQ(content(second), "alpha");
  EXPECT_TRUE(first.bytes().empty());  // NOLINT: a moved-from file is empty
  MappedFile third(folder.write("b", "beta"), GetParam());
  third = std::move(second);
  EXPECT_EQ(content(third), "alpha");
  EXPECT_EQ(third.path(), folder.file("a"));
  EXPECT_EQ(third.is_mapped(), GetParam());
}

TEST_P(MappedFileBothWays, KeepsTheOldBytesWhenTheFileIsReplacedOrDeleted) {
  const TempFolder folder;
  const std::string path = folder.write("a", "before");
  const MappedFile file(path, GetParam());
  std::filesystem::rename(folder.write("b", "after!"), path);
  EXPECT_EQ(content(file), "before");
  std::filesystem::remove(path);
  EXPECT_EQ(content(file), "before");
}

TEST(MappedFile, RefusesWhatIsNotARegularFile) {
  const TempFolder folder;
  const std::string pipe = folder.file("pipe");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  // Nobody writes to the pipe: an open that waits would hang here.
  expect_error(ErrorCode::kIo, pipe + ": is a pipe, not a regular file", [&] { MappedFile file(pipe); });
  expect_error(ErrorCode::kIo, "is a folder, not a regular file", [&] { MappedFile file(folder.path()); });
  expect_error(ErrorCode::kIo, "/dev/zero: is a device, not a regular file",
               [] { MappedFile file("/dev/zero"); });
}

TEST(MappedFile, NamesThePathAndTheReasonWhenItCannotOpen) {
  const TempFolder folder;
  const std::string absent = folder.file("absent");
  expect_error(ErrorCode::kIo, absent + ": cannot open: No such file", [&] { MappedFile file(absent); });
  const std::string loop = folder.file("loop");
  std::filesystem::create_symlink("loop", loop);
  expect_error(ErrorCode::kIo, "symbolic links", [&] { MappedFile file(loop); });
  expect_error(ErrorCode::kIo, "\\x1B]0;x", [&] { MappedFile file(folder.file("\x1B]0;x")); });
}

TEST(MappedFile, FollowsSymbolicLinks) {
  const TempFolder folder;
  folder.write("a", "alpha");
  std::filesystem::create_symlink("a", folder.file("link"));
  EXPECT_EQ(content(MappedFile(folder.file("link"))), "alpha");
}

TEST(MappedFile, SaysWhereALinkThatLeadsNowherePoints) {
  const TempFolder folder;
  const std::string link = folder.file("model.gguf");
  std::filesystem::create_symlink("../blobs/abc", link);
  expect_error(ErrorCode::kIo, link + ": is a link to ../blobs/abc, which is not there: download it again",
               [&] { MappedFile file(link); });
}

TEST(MappedFile, KnowsItselfUnderOtherNames) {
  const TempFolder folder;
  const std::string path = folder.write("a", "alpha");
  std::filesystem::create_symlink("a", folder.file("symbolic"));
  std::filesystem::create_hard_link(path, folder.file("hard"));
  const MappedFile file(path);
  EXPECT_TRUE(file.is_same_file(path));
  EXPECT_TRUE(file.is_same_file(folder.path().string() + "/./a"));
  EXPECT_TRUE(file.is_same_file(folder.file("symbolic")));
  EXPECT_TRUE(file.is_same_file(folder.file("hard")));
  EXPECT_FALSE(file.is_same_file(folder.write("b", "alpha")));
  EXPECT_FALSE(file.is_same_file(folder.file("absent")));
}

TEST(MappedFileDeathTest, AFileThatShrankEndsTheProcessWithAMessageAndWithoutLeftovers) {
  const TempFolder folder;
  const std::string path = folder.write("a", numbered_bytes(8192));
  EXPECT_EXIT(
      {
        install_sigbus_handler();
        const OutputFile output(folder.file("out"), 16, false);
        const MappedFile file(path);
        if (::truncate(path.c_str(), 0) != 0) std::abort();
        const volatile uint8_t* data = file.bytes().data();
        static_cast<void>(data[5000]);
      },
      testing::ExitedWithCode(5), "error: a mapped file cannot be read any more: it shrank");
  EXPECT_EQ(folder.names(), std::vector<std::string>{"a"});
}

}  // namespace
}  // namespace quern
