#include "quant/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <string_view>
#include <system_error>
#include <utility>

#include "quant/error.h"
#include "quant/machine/random.h"

namespace quern {
namespace {

constexpr size_t kFileNameBytes = 255;  // NAME_MAX of every file system in use
constexpr size_t kRandomDigits = 16;
constexpr std::string_view kTemporaryEnd = ".tmp";
constexpr size_t kSuffixBytes = 1 + kRandomDigits + kTemporaryEnd.size();

std::string shown(const std::string& path) { return printable(path, kPathBytes); }

// Paths of the files that exist now, for a signal handler: owned by their OutputFile or RemovedOnSignal,
// whose address does not change. More files at once than slots are legal; the rest is only not cleaned up by
// a signal.
std::array<std::atomic<const char*>, 8> unfinished_paths;
static_assert(std::atomic<const char*>::is_always_lock_free, "a signal handler reads them");

void remember_unfinished(const char* path) {
  for (auto& slot : unfinished_paths) {
    const char* free_slot = nullptr;
    if (slot.compare_exchange_strong(free_slot, path)) return;
  }
}

void forget_unfinished(const char* path) noexcept {
  for (auto& slot : unfinished_paths) {
    const char* mine = path;
    if (slot.compare_exchange_strong(mine, nullptr)) return;
  }
}

std::pair<std::string, std::string> split_path(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {".", path};
  return {slash == 0 ? "/" : path.substr(0, slash), path.substr(slash + 1)};
}

// What its temporary files' names begin with.
std::string_view temporary_prefix(std::string_view name) {
  return name.substr(0, kFileNameBytes - kSuffixBytes);
}

// "<folder>/<name>.<16 random hex digits>.tmp": random, because a process number would not be unique in a
// folder that several machines or containers share.
std::string temporary_name(const std::string& target) {
  const std::string name = split_path(target).second;
  return fmt::format("{}{}.{:0{}x}{}", target.substr(0, target.size() - name.size()), temporary_prefix(name),
                     random_value<uint64_t>(), kRandomDigits, kTemporaryEnd);
}

void check_target(const std::string& target, bool overwrite) {
  const std::string name = split_path(target).second;
  if (name.empty() || name == "." || name == "..") {
    fail(ErrorCode::kUsage, "'{}' does not name an output file", shown(target));
  }
  struct stat status {};
  if (::lstat(target.c_str(), &status) != 0) return;  // absent, or the open below will say what is wrong
  if (S_ISDIR(status.st_mode)) fail(ErrorCode::kUsage, "{}: is a folder, not an output file", shown(target));
  if (S_ISLNK(status.st_mode)) {
    fail(ErrorCode::kUsage, "{}: is a symbolic link; name the file that it points to", shown(target));
  }
  if (!S_ISREG(status.st_mode)) fail(ErrorCode::kUsage, "{}: is not a regular file", shown(target));
  if (!overwrite) fail(ErrorCode::kUsage, "{}: exists already; --force replaces it", shown(target));
}

uint64_t available_bytes(int fd) {
  struct statvfs status {};
  const bool known = ::fstatvfs(fd, &status) == 0 && status.f_blocks > 0;
  if (!known) return std::numeric_limits<uint64_t>::max();
  return static_cast<uint64_t>(status.f_bavail) * status.f_frsize;
}

[[noreturn]] void fail_full(const std::string& target, uint64_t needed, uint64_t available) {
  fail(ErrorCode::kIo, "{}: no space left on the disk: {} bytes needed, {} available", shown(target), needed,
       available);
}

[[noreturn]] void fail_write(int error_number, const std::string& target, uint64_t size, uint64_t available) {
  if (error_number == ENOSPC) fail_full(target, size, available);
  if (error_number == EFBIG) {
    fail(ErrorCode::kIo,
         "{}: {} bytes are more than a file may have here (limit of the file system, or ulimit -f)",
         shown(target), size);
  }
  fail_errno(error_number, fmt::format("{}: cannot write", shown(target)));
}

// Gives the file its final size, its blocks reserved where the file system can do that.
void reserve(int fd, const std::string& target, uint64_t size) {
  if (size == 0) return;
  if (size > static_cast<uint64_t>(std::numeric_limits<off_t>::max())) fail_write(EFBIG, target, size, 0);
  // Asked first: a reservation that fails may have filled the disk for others until then.
  const uint64_t available = available_bytes(fd);
  if (available < size) fail_full(target, size, available);
  int result;
  do {
    // Not posix_fallocate: where the file system cannot reserve, glibc's writes into every block.
    result = ::fallocate(fd, 0, 0, static_cast<off_t>(size));
  } while (result != 0 && errno == EINTR);
  if (result != 0 && (errno == EOPNOTSUPP || errno == ENOSYS)) {
    result = ::ftruncate(fd, static_cast<off_t>(size));
  }
  if (result != 0) fail_write(errno, target, size, available);
}

// Renames `from` to `to`, which must not exist. Returns errno, 0 when done.
int rename_to_new(const std::string& from, const std::string& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return errno;
  // File systems without RENAME_NOREPLACE: a hard link is as atomic, and refuses an existing target as well.
  if (::link(from.c_str(), to.c_str()) == 0) {
    ::unlink(from.c_str());
    return 0;
  }
  if (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS) return errno;
  // Neither (FAT): a look before the rename is the best there is.
  struct stat status {};
  if (::lstat(to.c_str(), &status) == 0) return EEXIST;
  return ::rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
}

std::string path_of_descriptor(int fd) { return fmt::format("/proc/self/fd/{}", fd); }

}  // namespace

std::vector<std::string> temporary_files_of(const std::string& target) {
  namespace fs = std::filesystem;
  const auto [folder, name] = split_path(target);
  const std::string_view prefix = temporary_prefix(name);
  const auto is_temporary = [&](std::string_view file) {
    if (file.size() != prefix.size() + kSuffixBytes || !file.starts_with(prefix) ||
        !file.ends_with(kTemporaryEnd) || file[prefix.size()] != '.')
      return false;
    const std::string_view digits = file.substr(prefix.size() + 1, kRandomDigits);
    return digits.find_first_not_of("0123456789abcdef") == digits.npos;
  };
  std::vector<std::string> found;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (const std::string file = it->path().filename().string(); is_temporary(file))
      found.push_back(target.substr(0, target.size() - name.size()) + file);
  std::sort(found.begin(), found.end());
  return found;
}

void flush_folder_of(const std::string& target) {
  const std::string folder = split_path(target).first;
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 && errno == EACCES) return;  // may be written to, not read: nothing to flush it by
  const int result = fd < 0 ? -1 : ::fsync(fd);
  const int error_number = errno;
  if (fd >= 0) ::close(fd);
  // EINVAL: a file system whose folders need no flushing.
  if (result != 0 && error_number != EINVAL) {
    fail_errno(error_number,
               fmt::format("{}: written, but its folder cannot be flushed to the disk", shown(target)));
  }
}

OutputFile::OutputFile(const std::string& target, uint64_t size, bool overwrite, Temporary temporary)
    : target_(target), size_(size), overwrite_(overwrite) {
  check_target(target, overwrite);
  if (temporary == Temporary::kNamed || !open_nameless()) open_named();
  try {
    reserve(fd_, target_, size_);
  } catch (...) {
    discard();
    throw;
  }
}

OutputFile::~OutputFile() { discard(); }

// Read and write for all, less what the umask takes away, as for any new file; so below.
bool OutputFile::open_nameless() {
  fd_ = ::open(split_path(target_).first.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0666);
  if (fd_ < 0) return false;  // open_named says what is wrong, if more than that
  // It is named through /proc in the end: better to know now whether that is there.
  if (::access(path_of_descriptor(fd_).c_str(), F_OK) == 0) return true;
  ::close(std::exchange(fd_, -1));
  return false;
}

void OutputFile::open_named() {
  temporary_ = temporary_name(target_);
  remember_unfinished(temporary_.c_str());  // before the file exists, so that no signal finds it unknown
  fd_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ >= 0) return;
  const int error_number = errno;
  forget_unfinished(temporary_.c_str());
  temporary_.clear();
  const std::string folder = split_path(target_).first;
  if (error_number == ENOENT && ::access(folder.c_str(), F_OK) != 0)
    fail(ErrorCode::kIo, "{}: cannot create: No such file or directory; its folder is not there: {}",
         shown(target_), shown(folder));
  fail_errno(error_number, fmt::format("{}: cannot create", shown(target_)));
}

void OutputFile::discard() noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  if (temporary_.empty()) return;
  ::unlink(temporary_.c_str());
  forget_unfinished(temporary_.c_str());
  temporary_.clear();
}

void OutputFile::write_at(uint64_t offset, std::span<const uint8_t> bytes) {
  QUERN_CHECK(fd_ >= 0 && offset <= size_ && bytes.size() <= size_ - offset);
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail_write(written < 0 ? errno : EIO, target_, size_, available_bytes(fd_));
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
}

void OutputFile::flush() {
  QUERN_CHECK(fd_ >= 0);
  if (::fdatasync(fd_) == 0) return;
  const int error_number = errno;
  discard();
  fail_errno(error_number, fmt::format("{}: cannot flush to the disk", shown(target_)));
}

int OutputFile::give_name() {
  if (temporary_.empty()) {
    const std::string file = path_of_descriptor(fd_);
    if (::linkat(AT_FDCWD, file.c_str(), AT_FDCWD, target_.c_str(), AT_SYMLINK_FOLLOW) == 0) return 0;
    if (errno != EEXIST || !overwrite_) return errno;
    // Only a rename replaces, and only what has a name can be renamed.
    temporary_ = temporary_name(target_);
    remember_unfinished(temporary_.c_str());
    if (::linkat(AT_FDCWD, file.c_str(), AT_FDCWD, temporary_.c_str(), AT_SYMLINK_FOLLOW) != 0) return errno;
  }
  if (!overwrite_) return rename_to_new(temporary_, target_);
  return ::rename(temporary_.c_str(), target_.c_str()) == 0 ? 0 : errno;
}

void OutputFile::publish() {
  QUERN_CHECK(fd_ >= 0);
  try {
    // A file that has a name is closed first: some file systems say only then what went wrong. After EINTR
    // the descriptor is closed all the same (Linux).
    if (!temporary_.empty() && ::close(std::exchange(fd_, -1)) != 0 && errno != EINTR) {
      fail_errno(errno, fmt::format("{}: cannot close", shown(target_)));
    }
    const int error_number = give_name();
    if (error_number == EEXIST) {
      fail(ErrorCode::kIo, "{}: somebody else has created it meanwhile; --force replaces it", shown(target_));
    }
    if (error_number != 0) fail_errno(error_number, fmt::format("{}: cannot rename to it", shown(target_)));
  } catch (...) {
    discard();
    throw;
  }
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  if (temporary_.empty()) return;
  forget_unfinished(temporary_.c_str());
  temporary_.clear();
}

void OutputFile::commit(double* fsync_seconds) {
  const auto start = std::chrono::steady_clock::now();
  flush();
  publish();
  flush_folder_of(target_);
  if (fsync_seconds != nullptr) {
    *fsync_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
}

RemovedOnSignal::RemovedOnSignal(std::string path) : path_(std::move(path)) {
  remember_unfinished(path_.c_str());
}

RemovedOnSignal::~RemovedOnSignal() { forget_unfinished(path_.c_str()); }

void remove_unfinished_outputs() noexcept {
  for (const auto& slot : unfinished_paths) {
    if (const char* path = slot.load(); path != nullptr) ::unlink(path);
  }
}

}  // namespace quern
