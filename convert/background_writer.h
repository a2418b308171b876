// Writes one piece of the output while the next one is made.
#pragma once

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>

#include "quant/gguf_writer.h"

namespace quern {

// Two buffers and a thread. The owner calls from one thread:
//   fill(buffer(n)); submit(tensor, offset);  ...  drain();
// Pieces are written in the order of submit(). An error of the writer is thrown by the next call here. The
// GgufWriter must not be used by others until drain() has returned, and outlives this object. The destructor
// waits for the piece being written and drops what is pending.
class BackgroundWriter {
 public:
  // Every piece has at most max_bytes.
  BackgroundWriter(GgufWriter& writer, size_t max_bytes);
  ~BackgroundWriter();
  BackgroundWriter(const BackgroundWriter&) = delete;
  BackgroundWriter& operator=(const BackgroundWriter&) = delete;

  // The buffer for the next piece, `size` bytes, contents undefined; waits until it has been written out.
  std::span<uint8_t> buffer(size_t size);
  // Hands over what buffer() returned last.
  void submit(size_t tensor, uint64_t offset);
  // Waits until everything is written.
  void drain();

 private:
  struct Piece {
    size_t tensor;
    uint64_t offset;
    std::span<const uint8_t> bytes;
  };

  void run();

  GgufWriter& writer_;
  std::array<std::unique_ptr<uint8_t[]>, 2> buffers_;
  size_t next_ = 0;  // buffer that buffer() hands out
  size_t max_bytes_;
  std::span<uint8_t> current_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Piece> pending_;  // waits for the thread
  bool writing_ = false;          // the thread is at a piece
  bool stop_ = false;
  std::exception_ptr error_;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace quern
