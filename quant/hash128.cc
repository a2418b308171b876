#include "quant/hash128.h"

#include <fmt/format.h>

#define XXH_INLINE_ALL  // its header alone: nothing to link
#include <xxhash.h>

#include <new>

#include "quant/machine/random.h"

namespace quern {
namespace {

XXH3_state_t* state_of(void* state) { return static_cast<XXH3_state_t*>(state); }

}  // namespace

std::string to_hex(Hash128 hash) { return fmt::format("{:016x}{:016x}", hash.high, hash.low); }

HashSecret random_hash_secret() {
  HashSecret secret;
  fill_random(secret);
  return secret;
}

Hasher128::Hasher128() : state_(XXH3_createState()) {
  if (state_ == nullptr) throw std::bad_alloc();
  XXH3_128bits_reset(state_of(state_));
}

Hasher128::Hasher128(const HashSecret& secret) : state_(XXH3_createState()) {
  if (state_ == nullptr) throw std::bad_alloc();
  XXH3_128bits_reset_withSecret(state_of(state_), secret.data(), secret.size());
}

Hasher128::~Hasher128() { XXH3_freeState(state_of(state_)); }

Hasher128& Hasher128::add(std::span<const uint8_t> bytes) {
  XXH3_128bits_update(state_of(state_), bytes.data(), bytes.size());
  return *this;
}

Hash128 Hasher128::hash() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_of(state_));
  return {hash.low64, hash.high64};
}

}  // namespace quern
