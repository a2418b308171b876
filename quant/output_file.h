// A file that appears whole or not at all.
//
// Written to a temporary file in the target's folder (O_EXCL, name begins with the target's and ends in
// ".tmp"), space reserved first; commit() flushes it to the disk, renames it to the target and flushes the
// folder. A process that dies before leaves the old target as it was. The destructor removes an uncommitted
// file, and so does remove_unfinished_outputs(), which a signal handler may call.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace quern {

class OutputFile {
 public:
  // Throws kIo when the folder cannot be written to or `size` bytes are not free (message: needed and
  // available), kUsage when `target` exists and overwrite is false, or is not a regular file (a symbolic link
  // neither: renaming would replace the link, not the file).
  OutputFile(const std::string& target, uint64_t size, bool overwrite);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // Writes all of `bytes` at `offset` (short writes and EINTR are retried). Throws kIo. Any threads may write
  // to different places at once.
  void write_at(uint64_t offset, std::span<const uint8_t> bytes);
  // fdatasync, close, rename (refusing to replace a target that appeared meanwhile unless overwrite), fsync
  // of the folder. Throws kIo, with the temporary file removed. `fsync_seconds` gets the time the disk took,
  // if not null.
  void commit(double* fsync_seconds = nullptr);

  const std::string& target() const { return target_; }

 private:
  void discard() noexcept;

  std::string target_, temporary_;
  uint64_t size_ = 0;
  int fd_ = -1;
  bool overwrite_ = false;
};

// Async-signal-safe: unlinks the temporary files of the OutputFiles that are being written (the first eight).
// For handlers that end the process.
void remove_unfinished_outputs() noexcept;

}  // namespace quern
