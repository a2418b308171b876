#include "quant/read_ahead.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <string>

#include "quant/mapped_file.h"
#include "tests/support/temp_folder.h"

namespace quern {
namespace {

using test::TempFolder;

constexpr uint64_t kMegabyte = uint64_t{1} << 20;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// A file of n megabytes that the page cache has let go; where the file system is the page cache: that it has.
std::string write_to_disk(const TempFolder& folder, size_t megabytes) {
  std::string bytes(megabytes * kMegabyte, 'x');
  for (size_t i = 0; i < bytes.size(); i += 4096) bytes[i] = static_cast<char>(i / 4096);
  std::string path = folder.write("file", bytes);
  const int fd = ::open(path.c_str(), O_RDONLY);
  EXPECT_EQ(::fsync(fd), 0);
  EXPECT_EQ(::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
  ::close(fd);
  return path;
}

TEST(ReadAhead, BringsThePartIntoMemory) {
  const TempFolder folder;
  const MappedFile file(write_to_disk(folder, 32));
  if (file.seems_in_memory(0, UINT64_MAX)) GTEST_SKIP() << "this file system is memory";
  const uint64_t begin = 8 * kMegabyte + 33, size = 12 * kMegabyte;
  {
    const ReadAhead read_ahead(file, file.bytes().subspan(begin, size));
    const auto start = std::chrono::steady_clock::now();
    while (!file.seems_in_memory(begin, size)) ASSERT_LT(seconds_since(start), 60);
  }
  for (size_t i = 0; i < file.bytes().size(); i += 4096)
    ASSERT_EQ(file.bytes()[i], static_cast<uint8_t>(i / 4096)) << i;
}

TEST(ReadAhead, StopsWithoutReadingTheRest) {
  const TempFolder folder;
  const std::string path = folder.write("holes", "");
  ASSERT_EQ(::truncate(path.c_str(), static_cast<off_t>(32 << 10) * kMegabyte), 0);
  const MappedFile file(path);
  const auto start = std::chrono::steady_clock::now();
  { const ReadAhead read_ahead(file, file.bytes()); }
  EXPECT_LT(seconds_since(start), 2);  // 32 GB of zeros take many times that
}

TEST(ReadAhead, DoesNothingForNoPartAndForACopy) {
  const TempFolder folder;
  const MappedFile mapped(folder.write("a", "alpha")), copied(folder.file("a"), false);
  const ReadAhead of_nothing(mapped, {}), of_copy(copied, copied.bytes());
}

}  // namespace
}  // namespace quern
