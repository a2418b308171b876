#include "quant/machine/disk_rate.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>

namespace quern {
namespace {

constexpr uint64_t kPiece = 4 << 20;  // of one read: enough that the way to the disk does not count
constexpr uint64_t kLeast = 4 * kPiece, kMost = 64 * kPiece;
constexpr double kSeconds = 1.0 / 3;

double rate_of(int fd, uint64_t size, void* buffer) {
  using Clock = std::chrono::steady_clock;
  const uint64_t begin = (size / 2) / kPiece * kPiece;
  const Clock::time_point start = Clock::now();
  double seconds = 0;
  uint64_t done = 0;
  while (seconds < kSeconds && done < kMost && begin + done + kPiece <= size) {
    if (::pread(fd, buffer, kPiece, static_cast<off_t>(begin + done)) != static_cast<ssize_t>(kPiece))
      return 0;
    done += kPiece;
    seconds = std::chrono::duration<double>(Clock::now() - start).count();
  }
  return seconds > 0 ? static_cast<double>(done) / seconds : 0;
}

}  // namespace

double disk_read_rate(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (fd < 0) return 0;
  struct stat status {};
  double rate = 0;
  if (::fstat(fd, &status) == 0 && status.st_size >= static_cast<off_t>(kLeast)) {
    // A mapping, as direct reads want whole pages.
    void* const buffer = ::mmap(nullptr, kPiece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer != MAP_FAILED) {
      rate = rate_of(fd, static_cast<uint64_t>(status.st_size), buffer);
      ::munmap(buffer, kPiece);
    }
  }
  ::close(fd);
  return rate;
}

}  // namespace quern
