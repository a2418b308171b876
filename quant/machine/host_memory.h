// Memory of the CPU device: aligned, zeroed, in huge pages when large.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace quern {

// Owns n_bytes of zeroed memory, aligned to 64 bytes. From 2 MiB on it is anonymous pages, aligned to 2 MiB,
// that the system takes from memory only when they are touched and may back with huge pages, except for the
// last, which are never more than n_bytes need. Movable.
class HostMemory {
 public:
  HostMemory() = default;
  // Throws kResource with `what` ("KV cache") and the size when the system refuses.
  HostMemory(uint64_t n_bytes, std::string_view what);
  ~HostMemory();
  HostMemory(HostMemory&& other) noexcept;
  HostMemory& operator=(HostMemory&& other) noexcept;

  // The first n_bytes of it, as far as no page of them has been touched, are taken in small pages: for memory
  // that is touched here and there.
  void use_small_pages(uint64_t n_bytes) const noexcept;

  uint8_t* data() const { return data_; }
  uint64_t size() const { return size_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
};

// Memory that is reused from call to call and grows when a call needs more. T: trivial.
template <class T>
class Scratch {
 public:
  explicit Scratch(const char* what) : what_(what) {}
  // What it held is lost when it grows.
  T* at_least(size_t n) {
    if (memory_.size() < n * sizeof(T)) {
      memory_ = HostMemory();  // first give back: both need not fit
      memory_ = HostMemory(uint64_t{n} * sizeof(T), what_);
    }
    return memory_.template as<T>();
  }

 private:
  const char* what_;
  HostMemory memory_;
};

}  // namespace quern
