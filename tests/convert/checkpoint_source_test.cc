// A folder read as a BF16 file is that file, byte for byte.
#include "convert/checkpoint_source.h"

#include <cstring>
#include <fstream>

#include "tests/convert/convert_calls.h"

namespace quern::test {
namespace {

std::unique_ptr<TensorSource> open(const std::string& folder, int n_threads = 2) {
  ConvertOptions options;
  options.source = folder;
  options.no_tokenizer = !fs::exists(folder + "/tokenizer.model");
  options.n_threads = n_threads;
  return open_checkpoint_as_bf16(options, {});
}

std::string_view text_of(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Header and every tensor, each loaded twice with its memory given back in between.
void expect_its_bf16_file(const std::string& folder, const std::string& path) {
  const Gguf file(path);
  const auto source = open(folder);
  const GgufReader& gguf = source->gguf();
  ASSERT_EQ(gguf.file_size(), file.reader.file_size());
  const size_t header = gguf.data_offset();
  ASSERT_EQ(header, file.reader.data_offset());
  ASSERT_FALSE(gguf.tensors().empty());
  const uint8_t* const begin = gguf.tensors()[0].data - header;
  EXPECT_EQ(text_of({begin, header}), text_of(file.file.bytes().first(header)));
  uint64_t largest = 0;
  for (const TensorView& tensor : gguf.tensors()) {
    largest = std::max(largest, tensor.n_bytes);
    for (int i = 0; i < 2; ++i) {
      source->load(tensor);
      EXPECT_TRUE(text_of({tensor.data, tensor.n_bytes}) == file.bytes_of(tensor.name)) << tensor.name;
      source->release(tensor);
    }
  }
  EXPECT_EQ(source->load_bytes(), largest);
}

TEST(CheckpointSource, HasTheBytesOfTheConvertedFile) {
  const TempFolder folder;
  for (const char* name : {"tiny-mistral", "stories260k", "random-window"}) {
    const std::string path = folder.file(std::string(name) + ".gguf");
    run(kData + "/" + name, path, "bf16");
    expect_its_bf16_file(kData + "/" + name, path);
  }
}

TEST_F(Twins, AreReadFromTheirFoldersAsTheirFiles) {
  for (const std::string& twin : {tied(), mistral()}) {
    const std::string path = folder_->file("twin.gguf");
    fs::remove(path);
    run(twin, path, "bf16");
    expect_its_bf16_file(twin, path);
  }
}

TEST(CheckpointSource, NamesAWeightThatIsNotFinite) {
  const TempFolder folder;
  const std::string broken = folder.file("broken");
  fs::copy(kTiny, broken, fs::copy_options::recursive);
  {
    // The last weight of the file: BF16's NaN.
    std::fstream file(broken + "/model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-2, std::ios::end);
    file.write("\xc0\x7f", 2);
  }
  const auto source = open(broken);
  size_t n_bad = 0;
  for (const TensorView& tensor : source->gguf().tensors()) {
    const std::string error = error_of([&] { source->load(tensor); });
    if (!error_code) continue;
    ++n_bad;
    EXPECT_EQ(*error_code, ErrorCode::kIntegrity) << error;
    EXPECT_NE(error.find("model.safetensors"), std::string::npos) << error;
    EXPECT_NE(error.find("not finite"), std::string::npos) << error;
  }
  EXPECT_EQ(n_bad, 1u);
}

TEST(CheckpointSource, GivesMemoryBackInPieces) {
  const auto source = open(kTiny);
  const TensorView& tensor = source->gguf().tensors()[0];
  source->load(tensor);
  constexpr uint64_t kPage = 4096;
  const std::string tail(reinterpret_cast<const char*>(tensor.data + 3 * kPage), tensor.n_bytes - 3 * kPage);
  source->done_with(tensor.data, 3 * kPage);
  EXPECT_TRUE(text_of({tensor.data + 3 * kPage, tensor.n_bytes - 3 * kPage}) == tail);
}

}  // namespace
}  // namespace quern::test
