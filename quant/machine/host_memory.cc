#include "quant/machine/host_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <utility>

#include "quant/checked_math.h"
#include "quant/error.h"

namespace quern {

namespace {

constexpr uint64_t kHugePage = uint64_t{2} << 20;
constexpr uint64_t kPage = uint64_t{64} << 10;  // a multiple of every system's small pages
constexpr std::align_val_t kAlignment{64};

bool is_mapped(uint64_t n_bytes) { return n_bytes >= kHugePage; }

// n_bytes rounded up to whole pages; only for sizes that were mapped. What lies behind the last whole huge
// page is of small ones: a model of many matrices of some MB would take a third more otherwise.
uint64_t mapped_bytes(uint64_t n_bytes) { return (n_bytes + kPage - 1) & ~(kPage - 1); }

// At a multiple of a huge page's size; null when the system refuses.
uint8_t* map_huge_pages(uint64_t n_bytes) {
  uint64_t padded;
  if (!checked_add(n_bytes, 2 * kHugePage, &padded) || padded > std::numeric_limits<ptrdiff_t>::max())
    return nullptr;
  const uint64_t wanted = mapped_bytes(n_bytes);
  void* const address =
      mmap(nullptr, wanted + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) return nullptr;
  // Cut off what lies before the first and after the last whole huge page.
  uint8_t* const begin = static_cast<uint8_t*>(address);
  const uint64_t before = (kHugePage - reinterpret_cast<uintptr_t>(begin) % kHugePage) % kHugePage;
  if (before != 0) munmap(begin, before);
  munmap(begin + before + wanted, kHugePage - before);
  madvise(begin + before, wanted, MADV_HUGEPAGE);  // an optimisation: a refusal changes nothing
  return begin + before;
}

}  // namespace

HostMemory::HostMemory(uint64_t n_bytes, std::string_view what) : size_(n_bytes) {
  if (n_bytes == 0) return;
  if (is_mapped(n_bytes)) {
    data_ = map_huge_pages(n_bytes);
  } else {
    data_ = static_cast<uint8_t*>(::operator new(n_bytes, kAlignment, std::nothrow));
    if (data_ != nullptr) std::memset(data_, 0, n_bytes);
  }
  if (data_ == nullptr) fail(ErrorCode::kResource, "{}: cannot allocate {} bytes", what, n_bytes);
}

HostMemory::~HostMemory() {
  if (data_ == nullptr) return;
  if (is_mapped(size_))
    munmap(data_, mapped_bytes(size_));
  else
    ::operator delete(data_, kAlignment);
}

void HostMemory::use_small_pages(uint64_t n_bytes) const noexcept {
  // A refusal changes nothing here either.
  if (is_mapped(size_)) madvise(data_, std::min(n_bytes, mapped_bytes(size_)), MADV_NOHUGEPAGE);
}

HostMemory::HostMemory(HostMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

HostMemory& HostMemory::operator=(HostMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace quern
