#include "quant/machine/address_range.h"

#include <sys/mman.h>
#include <unistd.h>

#include "quant/error.h"

namespace quern {

AddressRange::AddressRange(uint64_t size, std::string_view what) : size_(size) {
  void* const data =
      ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) fail(ErrorCode::kResource, "{}: cannot get {} bytes of addresses", what, size);
  data_ = static_cast<uint8_t*>(data);
}

AddressRange::~AddressRange() { ::munmap(data_, size_); }

void AddressRange::give_back(const uint8_t* begin, uint64_t n_bytes) const noexcept {
  static const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const auto offset = static_cast<uint64_t>(begin - data_);
  const uint64_t first = (offset + page - 1) / page * page, last = (offset + n_bytes) / page * page;
  if (first < last) ::madvise(data_ + first, last - first, MADV_DONTNEED);
}

}  // namespace quern
