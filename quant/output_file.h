// A file that appears whole or not at all.
//
// Written without a name (O_TMPFILE), so that a process that dies leaves nothing; where the file system, or a
// system without /proc, cannot do that, under a temporary name in the target's folder (O_EXCL, the target's
// name, random digits, ".tmp"), which the destructor removes, and remove_unfinished_outputs(), which a signal
// handler may call. Its space is reserved first. commit() flushes it to the disk, gives it the target's name
// and flushes the folder. A process that dies before leaves the old target as it was.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace quern {

class OutputFile {
 public:
  enum class Temporary : bool { kNamed, kNameless };  // kNameless: where that can be had

  // Throws kIo when the folder cannot be written to or `size` bytes are not free (message: needed and
  // available), kUsage when `target` exists and overwrite is false, or is not a regular file (a symbolic link
  // neither: renaming would replace the link, not the file).
  OutputFile(const std::string& target, uint64_t size, bool overwrite,
             Temporary temporary = Temporary::kNameless);
  ~OutputFile();
  OutputFile(OutputFile&&) = delete;
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // Writes all of `bytes` at `offset` (short writes and EINTR are retried). Throws kIo. Any threads may write
  // to different places at once.
  void write_at(uint64_t offset, std::span<const uint8_t> bytes);
  // flush(), publish() and fsync of the folder. `fsync_seconds` gets the time the disk took, if not null.
  void commit(double* fsync_seconds = nullptr);
  // The steps of it, for several files that belong together: the bytes reach the disk; the file gets its name
  // (refusing to replace a target that appeared meanwhile unless overwrite). Both throw kIo, with no file
  // left.
  void flush();
  void publish();

  const std::string& target() const { return target_; }

 private:
  bool open_nameless();
  void open_named();
  int give_name();  // returns errno; 0: the target is the file
  void discard() noexcept;

  std::string target_, temporary_;  // temporary_: empty while there is no such name
  uint64_t size_ = 0;
  int fd_ = -1;
  bool overwrite_ = false;
};

// Temporary files with names, of OutputFiles of this target that are being written, or whose process was
// killed; sorted. Empty where the folder cannot be listed.
std::vector<std::string> temporary_files_of(const std::string& target);

// fsync of the folder that `target` is in. Throws kIo.
void flush_folder_of(const std::string& target);

// Another file, such as a socket, that a process leaves to nobody: among those of remove_unfinished_outputs()
// while this lives. Who has made the file removes it when nothing goes wrong.
class RemovedOnSignal {
 public:
  explicit RemovedOnSignal(std::string path);
  ~RemovedOnSignal();
  RemovedOnSignal(const RemovedOnSignal&) = delete;
  RemovedOnSignal& operator=(const RemovedOnSignal&) = delete;

 private:
  const std::string path_;
};

// Async-signal-safe: unlinks the temporary files of the OutputFiles that are being written, and those of
// RemovedOnSignal (the first eight). For handlers that end the process.
void remove_unfinished_outputs() noexcept;

}  // namespace quern
