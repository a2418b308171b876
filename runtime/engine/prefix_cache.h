// What beginnings of texts were evaluated to, so that nobody reads them twice: blocks of 512 positions of the
// KV cache, with the recurrent states behind them, found by what was read up to their ends.
//
// Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention", SOSP 2023,
// section 4.4, shares blocks by reference; here they are copied, so that attention reads a sequence's own
// memory in order.
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "quant/hash128.h"
#include "quant/machine/host_memory.h"
#include "runtime/engine.h"
#include "runtime/engine/prefix_files.h"

namespace quern {

struct PrefixCacheOptions {
  uint64_t ram_bytes = 0;                   // of blocks in memory, their ids included
  std::string folder = {};                  // for blocks on the disk (prefix_files.h); empty: none
  uint64_t disk_bytes = 0;                  // of files there
  Notice notice = [](std::string_view) {};  // of files that are passed over
};

struct PrefixCacheStats {
  uint64_t blocks = 0, bytes = 0;      // in memory now
  uint64_t file_bytes = 0;             // on the disk now
  uint64_t restored = 0, dropped = 0;  // blocks since the start; dropped: from memory
};

// A block's key is a hash of what it depends on: a secret that each cache draws, or its folder has, the
// arithmetic, the model, the cache's format and context, the owner, and all ids up to its end. Ids are
// compared as well before a block is used. The blocks used longest ago go first, of one text the last ones.
// Not thread-safe; one model.
class PrefixCache {
 public:
  // Throws what PrefixFiles and model_hash() throw.
  PrefixCache(const Model& model, const PrefixCacheOptions& options);

  // Keys of a sequence's first blocks, as far as keep() has looked at them. Empty: of none.
  using Chain = std::vector<Hash128>;

  // Gives the sequence the longest run of blocks that `tokens` begin with and that leaves a token to
  // evaluate, if that is more than the sequence has of them.
  void restore(Sequence& sequence, std::string_view owner, std::span<const TokenId> tokens);
  // Takes copies of the sequence's blocks behind those of `chain`, which are added to that. Blocks that are
  // there, for which there is no memory, or whose states the sequence has not kept, are passed over.
  void keep(const Sequence& sequence, std::string_view owner, Chain* chain);

  PrefixCacheStats stats() const;

 private:
  struct Block {
    Hash128 key;
    std::vector<TokenId> ids;
    HostMemory memory;
    uint64_t bytes() const { return memory.size() + ids.size() * sizeof(TokenId); }
  };
  using Blocks = std::list<Block>;  // the one used last first

  Hash128 start(std::string_view owner) const;
  Hash128 next(const Hash128& before, std::span<const TokenId> ids) const;
  Blocks::iterator find(const Hash128& key, std::span<const TokenId> ids);
  bool make_room(uint64_t n_bytes, const Chain& chain);
  void take(Block block, const Chain& chain);
  void touch(const Chain& chain, size_t n);

  const Model& model_;
  const uint64_t ram_bytes_;
  std::optional<PrefixFiles> files_;
  const HashSecret secret_;
  const Hash128 model_hash_;
  Blocks blocks_;
  std::unordered_map<Hash128, Blocks::iterator, HashOfHash128> by_key_;
  PrefixCacheStats stats_;
};

}  // namespace quern
