#include "runtime/engine/prefix_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <tuple>
#include <vector>

#include "quant/gguf_files.h"
#include "quant/mapped_file.h"
#include "runtime/model.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSuffix = ".block", kUnfinished = ".unfinished";
constexpr uint32_t kVersion = 1;

struct Header {
  char magic[8];
  uint32_t version, arithmetic;
  Hash128 key, model;
  uint64_t n_ids, n_bytes;
  Hash128 checksum;
};
static_assert(sizeof(Header) == 80);

std::span<const uint8_t> bytes_of(std::span<const TokenId> ids) {
  return {reinterpret_cast<const uint8_t*>(ids.data()), ids.size_bytes()};
}

// Of all but itself.
Hash128 checksum_of(Header header, std::span<const uint8_t> ids, std::span<const uint8_t> block) {
  header.checksum = {};
  return Hasher128().add_value(header).add(ids).add(block).hash();
}

std::string shown(const std::string& path) { return printable(path, kPathBytes); }

void require_own_folder(const std::string& folder) {
  struct stat status {};
  if (::lstat(folder.c_str(), &status) != 0)
    fail_errno(errno, fmt::format("cannot open '{}'", shown(folder)));
  if (!S_ISDIR(status.st_mode))
    fail(ErrorCode::kUsage,
         "'{}' is no folder (a link counts as none); blocks of prompts need one of their own", shown(folder));
  if (status.st_uid != ::geteuid())
    fail(ErrorCode::kUsage,
         "the folder '{}' belongs to user {}, and this process is of user {}: prompts go "
         "into a folder of one's own",
         shown(folder), status.st_uid, ::geteuid());
  if ((status.st_mode & 077) != 0)
    fail(ErrorCode::kUsage, "the folder '{}' has mode {:04o}: others could read prompts; chmod 700 closes it",
         shown(folder), static_cast<unsigned>(status.st_mode & 07777));
}

// A regular file of this user that nobody else may read, by its own name.
bool is_own_file(const std::string& path, struct stat* status) {
  return ::lstat(path.c_str(), status) == 0 && S_ISREG(status->st_mode) && status->st_uid == ::geteuid() &&
         (status->st_mode & 077) == 0;
}

// Writes a file whole or not at all; not flushed to the disk, which the checksum makes up for. False, with
// errno: it is not there.
bool write_file(const std::string& path, std::initializer_list<std::span<const uint8_t>> parts) {
  const std::string unfinished = fmt::format("{}.{}{}", path, ::getpid(), kUnfinished);
  const int fd = ::open(unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) return false;
  bool good = true;
  for (std::span<const uint8_t> part : parts)
    while (good && !part.empty()) {
      const ssize_t n = ::write(fd, part.data(), part.size());
      if (n < 0 && errno == EINTR) continue;
      good = n > 0;
      if (good) part = part.subspan(static_cast<size_t>(n));
    }
  good = ::close(fd) == 0 && good;
  if (good && ::rename(unfinished.c_str(), path.c_str()) == 0) return true;
  const int error = errno;
  ::unlink(unfinished.c_str());
  errno = error;
  return false;
}

std::optional<Hash128> key_of(std::string_view name) {
  if (!name.ends_with(kSuffix)) return std::nullopt;
  name.remove_suffix(kSuffix.size());
  if (name.size() != 32) return std::nullopt;
  Hash128 key;
  const auto read = [](std::string_view digits, uint64_t* value) {
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), *value, 16);
    return error == std::errc() && end == digits.data() + digits.size();
  };
  if (!read(name.substr(0, 16), &key.high) || !read(name.substr(16), &key.low)) return std::nullopt;
  return key;
}

}  // namespace

Hash128 model_hash(const Model& model) {
  const GgufReader& gguf = model.gguf();
  const GgufFiles* const files = model.mapped_files();
  if (files == nullptr)
    fail(ErrorCode::kUsage, "blocks of prompts are kept on the disk for models in mapped files alone");
  Hasher128 hasher;
  for (const MappedFile& file : files->files()) {
    struct stat status {};
    if (::stat(file.path().c_str(), &status) != 0)
      fail_errno(errno, fmt::format("cannot open '{}'", shown(file.path())));
    hasher.add_value(status.st_size).add_value(status.st_mtim.tv_sec).add_value(status.st_mtim.tv_nsec);
  }
  hasher.add(files->files().front().bytes().first(gguf.data_offset()));
  for (const TensorView& tensor : gguf.tensors()) {
    constexpr uint64_t kSample = 4096;
    hasher.add_values(std::span(tensor.name)).add_value(tensor.dtype).add_values(std::span(tensor.shape));
    hasher.add({tensor.data, std::min(kSample, tensor.n_bytes)});
  }
  return hasher.hash();
}

PrefixFiles::PrefixFiles(const std::string& folder, uint64_t disk_bytes, const Hash128& model, Notice notice)
    : folder_(folder), disk_bytes_(disk_bytes), model_(model), notice_(std::move(notice)) {
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
    fail_errno(errno, fmt::format("cannot make the folder '{}'", shown(folder)));
  require_own_folder(folder);
  read_secret();
  list_files();
}

void PrefixFiles::read_secret() {
  const std::string path = folder_ + "/secret";
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) {
    if (errno != ENOENT) fail_errno(errno, fmt::format("cannot open '{}'", shown(path)));
    secret_ = random_hash_secret();
    if (!write_file(path, {secret_})) fail_errno(errno, fmt::format("cannot write '{}'", shown(path)));
    // Where another process came first, its secret counts: what stands there now.
  }
  if (!is_own_file(path, &status))
    fail(ErrorCode::kUsage, "'{}' is no file of this user's alone (mode 0600)", shown(path));
  const MappedFile file(path);
  if (file.bytes().size() != secret_.size())
    fail(ErrorCode::kMalformed, "'{}' has {} bytes, expected {}: remove it, and the blocks beside it",
         shown(path), file.bytes().size(), secret_.size());
  std::copy(file.bytes().begin(), file.bytes().end(), secret_.begin());
}

// Also takes away what a process that died was writing, once it is an hour old.
void PrefixFiles::list_files() {
  struct Found {
    timespec used;
    File file;
  };
  std::vector<Found> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_)) {
    const std::string name = entry.path().filename().string(), path = entry.path().string();
    struct stat status {};
    if (name.ends_with(kUnfinished) && ::lstat(path.c_str(), &status) == 0 &&
        status.st_mtim.tv_sec + 3600 < ::time(nullptr))
      ::unlink(path.c_str());
    const std::optional<Hash128> key = key_of(name);
    if (!key) continue;
    if (is_own_file(path, &status))
      found.push_back({status.st_mtim, {*key, static_cast<uint64_t>(status.st_size)}});
    else
      notice_(fmt::format("prefix cache: '{}' is no file of this user's alone; it counts as absent",
                          shown(path)));
  }
  std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) {
    return std::tie(a.used.tv_sec, a.used.tv_nsec) > std::tie(b.used.tv_sec, b.used.tv_nsec);
  });
  for (const Found& one : found) {
    files_.push_back(one.file);
    by_key_.emplace(one.file.key, std::prev(files_.end()));
    bytes_ += one.file.n_bytes;
  }
  while (bytes_ > disk_bytes_) remove(std::prev(files_.end()));
}

std::string PrefixFiles::path_of(const Hash128& key) const {
  return fmt::format("{}/{}{}", folder_, to_hex(key), kSuffix);
}

void PrefixFiles::remove(Files::iterator file) {
  ::unlink(path_of(file->key).c_str());
  bytes_ -= file->n_bytes;
  by_key_.erase(file->key);
  files_.erase(file);
}

void PrefixFiles::touch(const Hash128& key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return;
  files_.splice(files_.begin(), files_, found->second);
  ::utimensat(AT_FDCWD, path_of(key).c_str(), nullptr, AT_SYMLINK_NOFOLLOW);
}

// What is wrong with it; empty: nothing.
std::string PrefixFiles::check(std::span<const uint8_t> file, const Hash128& key,
                               std::span<const TokenId> ids, uint64_t n_bytes) const {
  Header header;
  if (file.size() < sizeof(header)) return "cut short";
  std::memcpy(&header, file.data(), sizeof(header));
  if (std::memcmp(header.magic, "QUERNKVB", 8) != 0) return "no block";
  if (header.version != kVersion || header.arithmetic != kArithmeticVersion)
    return fmt::format("of version {}.{}, expected {}.{}", header.version, header.arithmetic, kVersion,
                       kArithmeticVersion);
  if (header.key != key || header.model != model_) return "of another text or model";
  if (header.n_ids != ids.size() || header.n_bytes != n_bytes ||
      file.size() != sizeof(header) + ids.size_bytes() + n_bytes)
    return fmt::format("{} bytes, expected {}", file.size(), sizeof(header) + ids.size_bytes() + n_bytes);
  const auto stored_ids = file.subspan(sizeof(header), ids.size_bytes());
  if (checksum_of(header, stored_ids, file.last(n_bytes)) != header.checksum) return "damaged (checksum)";
  if (!std::ranges::equal(stored_ids, bytes_of(ids))) return "of other ids";
  return {};
}

std::optional<HostMemory> PrefixFiles::load(const Hash128& key, std::span<const TokenId> ids,
                                            uint64_t n_bytes) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return std::nullopt;
  const std::string path = path_of(key);
  struct stat status {};
  std::string wrong;
  try {
    if (!is_own_file(path, &status)) {
      wrong = ::access(path.c_str(), F_OK) == 0 ? "no file of this user's alone" : "gone";
    } else {
      const MappedFile file(path);
      wrong = check(file.bytes(), key, ids, n_bytes);
      if (wrong.empty()) {
        HostMemory block(n_bytes, "a block of the prefix cache");
        std::memcpy(block.data(), file.bytes().last(n_bytes).data(), n_bytes);
        touch(key);
        return block;
      }
    }
  } catch (const Error& error) {
    wrong = error.what();
  }
  if (wrong != "gone")  // another process has made room
    notice_(fmt::format("prefix cache: '{}': {}; it counts as absent", shown(path), wrong));
  remove(found->second);
  return std::nullopt;
}

void PrefixFiles::store(const Hash128& key, std::span<const TokenId> ids, std::span<const uint8_t> block) {
  const uint64_t n_bytes = sizeof(Header) + ids.size_bytes() + block.size();
  if (contains(key) || n_bytes > disk_bytes_) return;
  while (bytes_ > disk_bytes_ - n_bytes) remove(std::prev(files_.end()));
  Header header{{'Q', 'U', 'E', 'R', 'N', 'K', 'V', 'B'},
                kVersion,
                kArithmeticVersion,
                key,
                model_,
                ids.size(),
                block.size(),
                {}};
  header.checksum = checksum_of(header, bytes_of(ids), block);
  const std::string path = path_of(key);
  if (!write_file(path,
                  {{reinterpret_cast<const uint8_t*>(&header), sizeof(header)}, bytes_of(ids), block})) {
    if (!told_of_writing_)
      notice_(fmt::format("warning: prefix cache: cannot write '{}': {}; its blocks stay in memory",
                          shown(path), std::strerror(errno)));
    told_of_writing_ = true;
    return;
  }
  files_.push_front({key, n_bytes});
  by_key_.emplace(key, files_.begin());
  bytes_ += n_bytes;
}

}  // namespace quern
