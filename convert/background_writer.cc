#include "convert/background_writer.h"

#include <utility>

#include "quant/error.h"

namespace quern {

BackgroundWriter::BackgroundWriter(GgufWriter& writer, size_t max_bytes)
    : writer_(writer), max_bytes_(max_bytes) {
  for (auto& buffer : buffers_) buffer = std::make_unique_for_overwrite<uint8_t[]>(max_bytes);
  thread_ = std::thread([this] { run(); });
}

BackgroundWriter::~BackgroundWriter() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

std::span<uint8_t> BackgroundWriter::buffer(size_t size) {
  QUERN_CHECK(size <= max_bytes_);
  // While one buffer is being written the other is free. The one asked for now was handed over before the
  // last one: it has been written when nothing is pending, for the last one is then at least begun.
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !pending_ || error_; });
  if (error_) std::rethrow_exception(error_);
  current_ = {buffers_[next_].get(), size};
  return current_;
}

void BackgroundWriter::submit(size_t tensor, uint64_t offset) {
  {
    const std::lock_guard lock(mutex_);
    pending_ = Piece{tensor, offset, current_};
  }
  changed_.notify_all();
  next_ = 1 - next_;
}

void BackgroundWriter::drain() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return (!pending_ && !writing_) || error_; });
  if (error_) std::rethrow_exception(error_);
}

void BackgroundWriter::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return pending_ || stop_; });
    if (stop_) return;
    const Piece piece = *std::exchange(pending_, std::nullopt);
    writing_ = true;
    changed_.notify_all();
    lock.unlock();
    std::exception_ptr error;
    try {
      writer_.write_tensor(piece.tensor, piece.offset, piece.bytes);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    writing_ = false;
    error_ = error;
    changed_.notify_all();
    if (error) return;
  }
}

}  // namespace quern
