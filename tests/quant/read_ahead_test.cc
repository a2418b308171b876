#include "quant/read_ahead.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "quant/mapped_file.h"
#include "tests/support/temp_folder.h"

namespace quern {
namespace {

using Parts = std::vector<ReadAhead::Part>;

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

// Of [begin, begin + size), pages that are in memory. Truthful of files that the asker owns, and asking
// brings none.
size_t count_resident(const MappedFile& file, uint64_t begin, uint64_t size) {
  const uint64_t from = begin / 4096 * 4096, pages = (begin + size - from + 4095) / 4096;
  std::vector<unsigned char> resident(pages);
  void* const first = const_cast<uint8_t*>(file.bytes().data()) + from;
  EXPECT_EQ(::mincore(first, begin + size - from, resident.data()), 0);
  return static_cast<size_t>(std::count_if(resident.begin(), resident.end(), [](auto r) { return r & 1; }));
}

TEST(ReadAhead, BringsThePartIntoMemory) {
  const TempFolder folder;
  const MappedFile file(write_to_disk(folder, 32));
  if (count_resident(file, 0, 32 * kMegabyte) != 0) GTEST_SKIP() << "this file system keeps files in memory";
  const uint64_t begin = 8 * kMegabyte + 33, size = 12 * kMegabyte;
  EXPECT_FALSE(file.seems_in_memory(begin, size));
  {
    const ReadAhead read_ahead(Parts{{&file, file.bytes().subspan(begin, size)}});
    const auto start = std::chrono::steady_clock::now();
    while (count_resident(file, begin, size) != size / 4096 + 1) ASSERT_LT(seconds_since(start), 60);
  }
  EXPECT_TRUE(file.seems_in_memory(begin, size));
  for (size_t i = 0; i < file.bytes().size(); i += 4096)
    ASSERT_EQ(file.bytes()[i], static_cast<uint8_t>(i / 4096)) << i;
}

TEST(ReadAhead, StopsWithoutReadingTheRest) {
  const TempFolder folder;
  const MappedFile file(write_to_disk(folder, 256));
  const uint64_t size = file.bytes().size();
  if (count_resident(file, 0, size) != 0) GTEST_SKIP() << "this file system keeps files in memory";
  { const ReadAhead read_ahead(Parts{{&file, file.bytes()}}); }
  EXPECT_LT(count_resident(file, 0, size), size / 4096);
}

TEST(MappedFile, SeemsNotInMemoryWhereOnlyTheFirstPageIs) {
  const TempFolder folder;
  const MappedFile file(write_to_disk(folder, 4));
  if (count_resident(file, 0, 4 * kMegabyte) != 0) GTEST_SKIP() << "this file system keeps files in memory";
  ASSERT_EQ(::madvise(const_cast<uint8_t*>(file.bytes().data()), 4 * kMegabyte, MADV_RANDOM), 0);
  static_cast<void>(*static_cast<const volatile uint8_t*>(file.bytes().data()));
  ASSERT_LT(count_resident(file, 0, 4 * kMegabyte), kMegabyte / 4096);
  EXPECT_FALSE(file.seems_in_memory(0, kMegabyte + 5));
}

TEST(ReadAhead, DoesNothingForNoPartAndForACopy) {
  const TempFolder folder;
  const MappedFile mapped(folder.write("a", "alpha")), copied(folder.file("a"), false);
  const ReadAhead of_nothing(Parts{}), of_no_part(Parts{{&mapped, {}}}),
      of_copy(Parts{{&copied, copied.bytes()}});
  EXPECT_EQ(std::string(copied.bytes().begin(), copied.bytes().end()), "alpha");
}

}  // namespace
}  // namespace quern
