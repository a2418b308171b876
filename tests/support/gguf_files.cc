#include "tests/support/gguf_files.h"

#include "quant/gguf_reader.h"
#include "quant/gguf_writer.h"
#include "quant/mapped_file.h"

namespace quern::test {

namespace {

// one_more: of one float, with its bytes; without a name there is none.
void rewrite(const std::string& from, const std::string& to, const std::function<void(GgufMetadata*)>& change,
             const TensorView& one_more) {
  const MappedFile file(from);
  const GgufReader gguf(file.bytes(), from);
  GgufMetadata metadata;
  for (const GgufReader::KeyValue& pair : gguf.metadata()) metadata.set_value(pair.key, pair.value);
  change(&metadata);
  std::vector<TensorView> tensors = gguf.tensors();
  if (!one_more.name.empty()) tensors.push_back(one_more);
  std::vector<GgufTensorInfo> infos;
  for (const TensorView& tensor : tensors)
    infos.push_back({tensor.name, tensor.dtype, tensor.shape, tensor.layout});
  const GgufPlan plan(metadata, std::move(infos));
  GgufWriter writer(to, plan, metadata, false);
  for (size_t i = 0; i < tensors.size(); ++i)
    writer.write_tensor(i, 0, {tensors[i].data, tensors[i].n_bytes});
  writer.finish();
}

}  // namespace

void rewrite_gguf(const std::string& from, const std::string& to,
                  const std::function<void(GgufMetadata*)>& change) {
  rewrite(from, to, change, {});
}

void add_float_to_gguf(const std::string& from, const std::string& to, const std::string& name, float value) {
  TensorView tensor{name, DType::F32, {1}};
  tensor.data = reinterpret_cast<const uint8_t*>(&value);
  tensor.n_bytes = sizeof value;
  rewrite(
      from, to, [](GgufMetadata*) {}, tensor);
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
