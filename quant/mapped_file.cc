#include "quant/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>

#include "quant/error.h"
#include "quant/machine/file_descriptor.h"

namespace quern {
namespace {

std::string_view kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

// A link that leads nowhere is what a cache leaves whose files were cleared: better named than "no such
// file".
[[noreturn]] void refuse_to_open(const std::string& path, const std::string& shown_path, int error_number) {
  char target[4096];
  const ssize_t length = error_number == ENOENT ? ::readlink(path.c_str(), target, sizeof target) : -1;
  if (length < 0) fail_errno(error_number, fmt::format("{}: cannot open", shown_path));
  fail(ErrorCode::kIo, "{}: is a link to {}, which is not there: download it again", shown_path,
       printable({target, static_cast<size_t>(length)}, kPathBytes));
}

// Anonymous memory with the file's bytes in it; a mapping, so that both kinds are released alike.
void* copy_file(int fd, size_t size, const std::string& shown_path) {
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    fail(ErrorCode::kResource, "{}: cannot get {} bytes of memory to copy the file into", shown_path, size);
  }
  size_t done = 0;
  while (done < size) {
    const ssize_t got =
        ::pread(fd, static_cast<uint8_t*>(memory) + done, size - done, static_cast<off_t>(done));
    if (got > 0) {
      done += static_cast<size_t>(got);
      continue;
    }
    if (got < 0 && errno == EINTR) continue;
    const int error_number = errno;
    ::munmap(memory, size);
    if (got < 0) fail_errno(error_number, fmt::format("{}: cannot read (offset {:#x})", shown_path, done));
    fail(ErrorCode::kIo, "{}: the file shrank while it was read: {} bytes of {}", shown_path, done, size);
  }
  return memory;
}

// [begin, end) rounded to whole pages: to all that it touches (grow), or to those that lie wholly inside. An
// end need not be aligned when it grows.
std::pair<uint64_t, uint64_t> page_range(uint64_t begin, uint64_t end, bool grow) {
  static const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const auto down = [](uint64_t x) { return x / page * page; };
  return grow ? std::pair(down(begin), end) : std::pair(down(begin + page - 1), down(end));
}

// Whether the page with byte `at` of the file, mapped at `data`, is in memory. mincore says yes of everything
// to who may only read the file, so a yes is checked by a read that does not wait; that alone would make the
// system read what it is asked about. "No" also where the file system cannot tell.
bool is_in_memory(int fd, const uint8_t* data, uint64_t at) {
  unsigned char resident = 0;
  void* const page = const_cast<uint8_t*>(data) + page_range(at, at, true).first;
  if (::mincore(page, 1, &resident) != 0 || (resident & 1) == 0) return false;
  uint8_t byte;
  const iovec to{&byte, 1};
  return ::preadv2(fd, &to, 1, static_cast<off_t>(at), RWF_NOWAIT) == 1;
}

}  // namespace

MappedFile::MappedFile(const std::string& path, bool allow_mmap) : path_(path) {
  const std::string shown_path = printable(path, kPathBytes);
  // O_NONBLOCK: opening a pipe that nobody writes to must not wait; regular files do not care.
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (file.get() < 0) refuse_to_open(path, shown_path, errno);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail_errno(errno, fmt::format("{}: cannot stat", shown_path));
  if (!S_ISREG(status.st_mode)) {
    fail(ErrorCode::kIo, "{}: is {}, not a regular file", shown_path, kind_of(status.st_mode));
  }
  device_ = status.st_dev;
  inode_ = status.st_ino;
  const auto size = static_cast<size_t>(status.st_size);
  if (size == 0) return;
  void* memory = MAP_FAILED;
  if (allow_mmap) {
    memory = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
    // ENODEV: a file system that cannot map; such a file is copied.
    if (memory == MAP_FAILED && errno != ENODEV) fail_errno(errno, fmt::format("{}: cannot map", shown_path));
  }
  const bool mapped = memory != MAP_FAILED;
  if (!mapped) memory = copy_file(file.get(), size, shown_path);
  data_ = static_cast<const uint8_t*>(memory);
  size_ = size;
  if (mapped) fd_ = file.release();
}

MappedFile::~MappedFile() { release(); }

MappedFile::MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this == &other) return *this;
  release();
  path_ = std::move(other.path_);
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  device_ = other.device_;
  inode_ = other.inode_;
  fd_ = std::exchange(other.fd_, -1);
  return *this;
}

void MappedFile::release() noexcept {
  if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), size_);
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  data_ = nullptr;
  size_ = 0;
}

bool MappedFile::is_same_file(const std::string& other_path) const {
  struct stat status {};
  return ::stat(other_path.c_str(), &status) == 0 && status.st_dev == device_ && status.st_ino == inode_;
}

bool MappedFile::seems_in_memory(uint64_t begin, uint64_t size) const noexcept {
  if (!is_mapped() || begin >= size_ || size == 0) return true;
  // A page cache fills and gives up in long runs, so one page stands for its neighbours. The first one may
  // have come with what lies before; the last one tells of short parts.
  constexpr uint64_t kRun = uint64_t{2} << 20;
  const uint64_t end = begin + std::min(size, size_ - begin);
  if (!is_in_memory(fd_, data_, end - 1)) return false;
  for (uint64_t at = begin; at < end; at += kRun)
    if (!is_in_memory(fd_, data_, at)) return false;
  return true;
}

void MappedFile::will_need(uint64_t begin, uint64_t size) const noexcept {
  // Where nothing is to be done the system takes 10 ms a gigabyte to find that out, page by page.
  if (seems_in_memory(begin, size)) return;
  const auto [from, to] = page_range(begin, begin + std::min(size, size_ - begin), true);
  ::madvise(const_cast<uint8_t*>(data_) + from, to - from, MADV_WILLNEED);
}

void MappedFile::use_huge_pages() const noexcept {
  if (is_mapped()) ::madvise(const_cast<uint8_t*>(data_), size_, MADV_HUGEPAGE);
}

void MappedFile::done_with(uint64_t begin, uint64_t size) const noexcept {
  // Never on a copy: the pages of anonymous memory would come back as zeros.
  if (!is_mapped() || begin >= size_) return;
  const auto [from, to] = page_range(begin, begin + std::min(size, size_ - begin), false);
  if (from < to) ::madvise(const_cast<uint8_t*>(data_) + from, to - from, MADV_DONTNEED);
}

}  // namespace quern
