#include "runtime/engine/prefix_cache.h"

#include <algorithm>

namespace quern {
namespace {

constexpr size_t kBlock = Sequence::kBlock;

std::span<const TokenId> ids_of(std::span<const TokenId> tokens, size_t block) {
  return tokens.subspan(block * kBlock, kBlock);
}

}  // namespace

PrefixCache::PrefixCache(const Model& model, const PrefixCacheOptions& options)
    : model_(model),
      ram_bytes_(options.ram_bytes),
      files_(options.folder.empty()
                 ? std::nullopt
                 : std::optional<PrefixFiles>(std::in_place, options.folder, options.disk_bytes,
                                              model_hash(model), options.notice)),
      secret_(files_ ? files_->secret() : random_hash_secret()),
      model_hash_(files_ ? model_hash(model) : Hash128{}) {}

PrefixCacheStats PrefixCache::stats() const {
  PrefixCacheStats stats = stats_;
  if (files_) stats.file_bytes = files_->bytes();
  return stats;
}

// In memory alone one process has one model, which needs no hash.
Hash128 PrefixCache::start(std::string_view owner) const {
  return Hasher128(secret_)
      .add_value(kArithmeticVersion)
      .add_value(model_hash_)
      .add_value(model_.kv_shape().type)
      .add_value(model_.context())
      .add_values(std::span(owner))
      .hash();
}

Hash128 PrefixCache::next(const Hash128& before, std::span<const TokenId> ids) const {
  return Hasher128(secret_).add_value(before).add_values(ids).hash();
}

PrefixCache::Blocks::iterator PrefixCache::find(const Hash128& key, std::span<const TokenId> ids) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end() || !std::ranges::equal(found->second->ids, ids)) return blocks_.end();
  return found->second;
}

// The first block is used last, so that what goes first is what nothing else needs.
void PrefixCache::touch(const Chain& chain, size_t n) {
  for (size_t i = n; i-- > 0;) {
    if (const auto found = by_key_.find(chain[i]); found != by_key_.end())
      blocks_.splice(blocks_.begin(), blocks_, found->second);
    if (files_) files_->touch(chain[i]);
  }
}

void PrefixCache::restore(Sequence& sequence, std::string_view owner, std::span<const TokenId> tokens) {
  if (tokens.empty() || !model_.device().copies_blocks()) return;
  Chain chain;
  std::vector<std::span<const uint8_t>> blocks;
  std::list<Block> loaded;  // from the disk
  Hash128 key = start(owner);
  for (size_t i = 0; i < (tokens.size() - 1) / kBlock; ++i) {
    const std::span<const TokenId> ids = ids_of(tokens, i);
    key = next(key, ids);
    const Block* block = nullptr;
    if (const auto found = find(key, ids); found != blocks_.end()) {
      block = &*found;
    } else if (files_) {
      if (std::optional<HostMemory> memory = files_->load(key, ids, sequence.block_bytes())) {
        loaded.push_back({key, {ids.begin(), ids.end()}, std::move(*memory)});
        block = &loaded.back();
      }
    }
    if (block == nullptr) break;
    chain.push_back(key);
    blocks.emplace_back(block->memory.data(), block->memory.size());
  }
  const size_t n_known = std::min(sequence.common_prefix(tokens), sequence.n_cached());
  if (blocks.size() * kBlock > n_known) {
    sequence.restore(tokens.first(blocks.size() * kBlock), blocks);
    stats_.restored += blocks.size() - n_known / kBlock;
  }
  for (Block& block : loaded) take(std::move(block), chain);
  touch(chain, chain.size());
}

void PrefixCache::keep(const Sequence& sequence, std::string_view owner, Chain* chain) {
  const std::span<const TokenId> tokens = sequence.tokens();
  const size_t n_before = chain->size();
  if (!model_.device().copies_blocks()) return;
  while (chain->size() < sequence.n_blocks()) {
    const size_t index = chain->size();
    const std::span<const TokenId> ids = ids_of(tokens, index);
    chain->push_back(next(index == 0 ? start(owner) : chain->back(), ids));
    const Hash128& key = chain->back();
    const bool for_memory = !by_key_.contains(key), for_disk = files_ && !files_->contains(key);
    const uint64_t n_bytes = sequence.block_bytes();
    if (for_disk || (for_memory && make_room(n_bytes + ids.size_bytes(), *chain))) {
      try {
        Block block{key, {ids.begin(), ids.end()}, HostMemory(n_bytes, "a block of the prefix cache")};
        const std::span<uint8_t> bytes(block.memory.data(), block.memory.size());
        if (!sequence.save_block(index, bytes)) continue;
        if (for_disk) files_->store(key, ids, bytes);
        if (for_memory) take(std::move(block), *chain);
      } catch (const Error&) {
        continue;  // the machine has less memory to give than was planned
      }
    }
  }
  if (chain->size() > n_before) touch(*chain, chain->size());
}

// Puts it into memory, where there is room.
void PrefixCache::take(Block block, const Chain& chain) {
  if (!make_room(block.bytes(), chain)) return;
  stats_.bytes += block.bytes();
  ++stats_.blocks;
  blocks_.push_front(std::move(block));
  by_key_.emplace(blocks_.front().key, blocks_.begin());
}

// Not by dropping what the new block stands behind.
bool PrefixCache::make_room(uint64_t n_bytes, const Chain& chain) {
  if (n_bytes > ram_bytes_) return false;
  while (stats_.bytes > ram_bytes_ - n_bytes) {
    const Block& last = blocks_.back();
    if (std::find(chain.begin(), chain.end(), last.key) != chain.end()) return false;
    stats_.bytes -= last.bytes();
    --stats_.blocks;
    ++stats_.dropped;
    by_key_.erase(last.key);
    blocks_.pop_back();
  }
  return true;
}

}  // namespace quern
