// 128-bit hashes of bytes, other ones for every secret.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace quern {

struct Hash128 {
  uint64_t low = 0, high = 0;
  bool operator==(const Hash128&) const = default;
};
// Of hashes as keys of unordered containers.
struct HashOfHash128 {
  size_t operator()(const Hash128& hash) const noexcept { return static_cast<size_t>(hash.low); }
};
// 32 hexadecimal digits.
std::string to_hex(Hash128 hash);

using HashSecret = std::array<uint8_t, 192>;
// From the system's source of randomness.
HashSecret random_hash_secret();

// XXH3 with 128 bits (Yann Collet, xxHash, doc/xxhash_spec.md, "XXH3 algorithm overview"): as bytes come.
// Without a secret it is a checksum; with one nobody who does not know it finds bytes of the same hash by
// construction that is known today.
class Hasher128 {
 public:
  Hasher128();
  // The secret outlives the hasher.
  explicit Hasher128(const HashSecret& secret);
  ~Hasher128();
  Hasher128(const Hasher128&) = delete;
  Hasher128& operator=(const Hasher128&) = delete;

  Hasher128& add(std::span<const uint8_t> bytes);
  // The bytes of values without padding.
  template <class T>
  Hasher128& add_value(const T& value) {
    return add({reinterpret_cast<const uint8_t*>(&value), sizeof(T)});
  }
  template <class T>
  Hasher128& add_values(std::span<const T> values) {
    return add({reinterpret_cast<const uint8_t*>(values.data()), values.size_bytes()});
  }
  Hash128 hash() const;

 private:
  void* state_;
};

}  // namespace quern
