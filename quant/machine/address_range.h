// Addresses without memory behind them until they are used.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace quern {

// Owns a range of addresses whose pages take memory, zeroed, once they are written and until they are given
// back.
class AddressRange {
 public:
  // Throws kResource "<what>: ..." with the size when the system refuses. size: not 0.
  AddressRange(uint64_t size, std::string_view what);
  ~AddressRange();
  AddressRange(const AddressRange&) = delete;
  AddressRange& operator=(const AddressRange&) = delete;

  uint8_t* data() const { return data_; }
  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  // Gives the pages back that lie wholly in [begin, begin + n_bytes), which is inside; they are zeros again.
  void give_back(const uint8_t* begin, uint64_t n_bytes) const noexcept;

 private:
  uint8_t* data_ = nullptr;
  uint64_t size_;
};

}  // namespace quern
