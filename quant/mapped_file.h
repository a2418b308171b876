// A file mapped read-only, or (allow_mmap = false) copied into memory.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace quern {

class MappedFile {
 public:
  // Opens regular files only: directories, FIFOs and devices are refused by name, without blocking.
  // Throws kIo (cannot open, not a regular file), kResource (no memory for a copy). An empty file maps to an
  // empty span. A file on a file system that cannot map is copied.
  explicit MappedFile(const std::string& path, bool allow_mmap = true);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }
  bool is_mapped() const { return fd_ >= 0; }
  // The same file (device and inode)?
  bool is_same_file(const std::string& other_path) const;
  // Whether [begin, begin + size) of bytes() can be read without waiting for a disk, as far as a few of its
  // pages tell. Takes a microsecond or two for two megabytes.
  bool seems_in_memory(uint64_t begin, uint64_t size) const noexcept;
  // A hint that [begin, begin + size) of bytes() will be read soon / will not be read again by this process
  // (its pages leave the resident set; the page cache keeps them). No effect on contents.
  void will_need(uint64_t begin, uint64_t size) const noexcept;
  void done_with(uint64_t begin, uint64_t size) const noexcept;
  // A hint that pages which are read from the disk from now on had best be huge. Pays where the file is read
  // in order: each wait is for megabytes.
  void use_huge_pages() const noexcept;

 private:
  void release() noexcept;

  std::string path_;
  const uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
  uint64_t device_ = 0, inode_ = 0;
  int fd_ = -1;  // of a mapped file; of a copy and of an empty file: none
};

}  // namespace quern
