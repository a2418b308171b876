// Blocks of the prefix cache in a folder: what one process has read, a later one need not.
//
// A file NAME.block, NAME the key's 32 hexadecimal digits, in the machine's order of bytes:
//   bytes 0-7    "QUERNKVB"
//         8-11   version of this layout, 1
//         12-15  kArithmeticVersion
//         16-31  the key; 32-47 the model (model_hash())
//         48-55  number of ids; 56-63 bytes of the block
//         64-79  XXH3-128 of all else
//         80-    ids, the block (Device::save_kv)
// and `secret`, the bytes that keys are hashed with. The folder is the user's own, of mode 0700, its files of
// mode 0600: who can read it can read what was asked.
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>

#include "quant/error.h"
#include "quant/hash128.h"
#include "quant/machine/host_memory.h"
#include "quant/vocabulary.h"

namespace quern {

class Model;

// What restores a block must be what computes it: raised whenever a bit of arithmetic.md or of the cache's
// layout (kernel_set.h KvHead) changes.
inline constexpr uint32_t kArithmeticVersion = 1;

// Of what a block depends on in a model: the file's metadata, size and time, and of each tensor its name,
// shape, format and first 4096 bytes. Throws kUsage for a model that is not in mapped files.
Hash128 model_hash(const Model& model);

// Not thread-safe. Processes may share a folder, each within its own disk_bytes of what it knows of.
class PrefixFiles {
 public:
  // Makes the folder and the secret where they are not there. Throws kUsage for a folder that is not the
  // user's own or that others may enter, kIo; kMalformed for a secret that is none. notice: a line for every
  // file that is passed over.
  PrefixFiles(const std::string& folder, uint64_t disk_bytes, const Hash128& model, Notice notice);

  const HashSecret& secret() const { return secret_; }
  bool contains(const Hash128& key) const { return by_key_.contains(key); }
  // The block of n_bytes; nothing where there is none of these ids. A file that is damaged or not what its
  // name says counts as absent, and goes.
  std::optional<HostMemory> load(const Hash128& key, std::span<const TokenId> ids, uint64_t n_bytes);
  // Files used longest ago make room. What cannot be written is passed over, with a notice the first time.
  void store(const Hash128& key, std::span<const TokenId> ids, std::span<const uint8_t> block);
  // It counts as used now.
  void touch(const Hash128& key);

  uint64_t bytes() const { return bytes_; }

 private:
  struct File {
    Hash128 key;
    uint64_t n_bytes;
  };
  using Files = std::list<File>;  // the one used last first

  void read_secret();
  void list_files();
  std::string path_of(const Hash128& key) const;
  std::string check(std::span<const uint8_t> file, const Hash128& key, std::span<const TokenId> ids,
                    uint64_t n_bytes) const;
  void remove(Files::iterator file);

  const std::string folder_;
  const uint64_t disk_bytes_;
  const Hash128 model_;
  const Notice notice_;
  HashSecret secret_{};
  Files files_;
  std::unordered_map<Hash128, Files::iterator, HashOfHash128> by_key_;
  uint64_t bytes_ = 0;
  bool told_of_writing_ = false;
};

}  // namespace quern
