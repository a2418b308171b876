#include "tests/support/gguf_files.h"

#include "quant/gguf_reader.h"
#include "quant/gguf_writer.h"
#include "quant/mapped_file.h"

namespace quern::test {

void rewrite_gguf(const std::string& from, const std::string& to,
                  const std::function<void(GgufMetadata*)>& change) {
  const MappedFile file(from);
  const GgufReader gguf(file.bytes(), from);
  GgufMetadata metadata;
  for (const GgufReader::KeyValue& pair : gguf.metadata()) metadata.set_value(pair.key, pair.value);
  change(&metadata);
  std::vector<GgufTensorInfo> tensors;
  for (const TensorView& tensor : gguf.tensors())
    tensors.push_back({std::string(tensor.name), tensor.dtype, tensor.shape, tensor.layout});
  const GgufPlan plan(metadata, std::move(tensors));
  GgufWriter writer(to, plan, metadata, false);
  for (size_t i = 0; i < gguf.tensors().size(); ++i)
    writer.write_tensor(i, 0, {gguf.tensors()[i].data, gguf.tensors()[i].n_bytes});
  writer.finish();
}

void rewrite_vocabulary(const std::string& from, const std::string& to,
                        const std::function<void(Vocabulary*)>& change) {
  const MappedFile file(from);
  const GgufReader gguf(file.bytes(), from);
  Vocabulary vocabulary = read_vocabulary(gguf, gguf.find("tokenizer.ggml.tokens")->count, {});
  change(&vocabulary);
  rewrite_gguf(from, to, [&](GgufMetadata* metadata) {
    const std::vector<GgufMetadata::Entry> entries = metadata->entries();
    for (const GgufMetadata::Entry& entry : entries)
      if (entry.key.starts_with("tokenizer.") || entry.key.starts_with("quern.tokenizer."))
        metadata->erase(entry.key);
    write_vocabulary(vocabulary, metadata);
  });
}

}  // namespace quern::test
