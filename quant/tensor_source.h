// A model as GGUF describes it, wherever its bytes come from: a GGUF file, or something that becomes one
// while it is read (convert/checkpoint_source.h).
//
// Metadata and descriptors are there at once. The bytes of a tensor are where its descriptor says from load()
// until release(), or until done_with() gave them back piece by piece. Belongs to one thread, except for
// done_with().
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "quant/gguf_files.h"
#include "quant/gguf_reader.h"

namespace quern {

class TensorSource {
 public:
  virtual ~TensorSource() = default;

  virtual const GgufReader& gguf() const = 0;
  // tensor: one of gguf().tensors(). Throws kIntegrity for weights that are not finite, where they are looked
  // at on the way, kResource for memory that is not there.
  virtual void load(const TensorView& tensor) = 0;
  virtual void release(const TensorView& tensor) noexcept = 0;
  // Hints about [begin, begin + n_bytes), a part of a tensor: it will be read soon; it will not be read
  // again. Any thread.
  virtual void will_need(const uint8_t* begin, uint64_t n_bytes) const noexcept = 0;
  virtual void done_with(const uint8_t* begin, uint64_t n_bytes) const noexcept = 0;

  // Bytes of memory that load() takes at most at once.
  virtual uint64_t load_bytes() const { return 0; }
  // Null where tensors are not in mapped files.
  virtual const GgufFiles* mapped_files() const { return nullptr; }
  // Whether all tensors are in memory already, before any is read.
  virtual bool is_in_memory() const { return false; }
};

// A GGUF file, or all parts of a split one: load() has nothing to do.
class GgufFile : public TensorSource {
 public:
  // Throws like GgufFiles.
  explicit GgufFile(const std::string& path, bool allow_mmap = true, const Notice& notice = {})
      : files_(path, allow_mmap, notice) {}

  const GgufReader& gguf() const override { return files_.gguf(); }
  void load(const TensorView&) override {}
  void release(const TensorView&) noexcept override {}
  void will_need(const uint8_t* begin, uint64_t n_bytes) const noexcept override {
    files_.will_need({begin, n_bytes});
  }
  void done_with(const uint8_t* begin, uint64_t n_bytes) const noexcept override {
    files_.done_with({begin, n_bytes});
  }
  const GgufFiles* mapped_files() const override { return files_.is_mapped() ? &files_ : nullptr; }
  bool is_in_memory() const override { return !files_.is_mapped(); }

 private:
  GgufFiles files_;
};

}  // namespace quern
