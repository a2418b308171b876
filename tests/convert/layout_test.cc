// Files of panels (--layout p16) and back, whatever they are made from, and what their rows cost.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "quant/gguf_writer.h"
#include "tests/convert/convert_calls.h"

namespace quern {
namespace {

namespace fs = std::filesystem;
using test::error_code;
using test::error_of;
using test::Gguf;
using test::kData;
using test::name_of;
using test::run;
using test::TempFolder;
using test::Twins;

ConvertReport relayout(const std::string& source, const std::string& output, TensorLayout layout,
                       const std::string& type = "", int n_threads = 2) {
  ConvertOptions options;
  options.source = source;
  options.output = output;
  options.type = type;
  options.layout = layout;
  options.n_threads = n_threads;
  return convert(options, {});
}

// stories260k: 172 rows of gate and up are no whole number of panels.
class Layouts : public testing::TestWithParam<Recipe> {
 protected:
  const std::string kSource = kData + "/stories260k";
  std::string type() const { return std::string(GetParam().name); }
  TempFolder folder_;
};
INSTANTIATE_TEST_SUITE_P(Recipes, Layouts, testing::ValuesIn(recipes().begin(), recipes().end()), name_of);

TEST_P(Layouts, RoundTripGivesBackTheSameFile) {
  const std::string standard = folder_.file("a.gguf"), panels = folder_.file("p.gguf"),
                    back = folder_.file("b.gguf");
  run(kSource, standard, type());
  const ConvertReport report = relayout(standard, panels, TensorLayout::kPanels);
  EXPECT_EQ(report.file_bytes, fs::file_size(standard));
  const Gguf a(standard), p(panels);
  for (size_t i = 0; i < a.reader.tensors().size(); ++i) {
    const TensorView &rows = a.reader.tensors()[i], &turned = p.reader.tensors()[i];
    EXPECT_EQ(turned.name, rows.name);
    EXPECT_EQ(turned.shape, rows.shape);
    EXPECT_EQ(turned.dtype, rows.dtype);
    EXPECT_EQ(turned.data - p.file.bytes().data(), rows.data - a.file.bytes().data()) << "keeps its place";
    const bool multiplied = rows.name.starts_with("blk.") && !rows.name.ends_with("_norm.weight");
    EXPECT_EQ(turned.layout == TensorLayout::kPanels, multiplied || rows.name == "output.weight")
        << rows.name;
    EXPECT_EQ(report.tensors[i].layout, turned.layout);
  }
  relayout(panels, back, TensorLayout::kRows, "", 3);
  EXPECT_TRUE(test::read_file(back) == test::read_file(standard));
}

TEST_P(Layouts, PanelsAreTheSameFromEverySource) {
  // From the checkpoint at once, from a file of rows, from a file of panels, and requantized from panels of
  // floats.
  run(kSource, folder_.file("rows.gguf"), type());
  relayout(folder_.file("rows.gguf"), folder_.file("a.gguf"), TensorLayout::kPanels);
  relayout(kSource, folder_.file("b.gguf"), TensorLayout::kPanels, type(), 1);
  relayout(folder_.file("a.gguf"), folder_.file("c.gguf"), TensorLayout::kPanels);
  const std::string expected = test::read_file(folder_.file("a.gguf"));
  for (const char* name : {"b.gguf", "c.gguf"})
    EXPECT_TRUE(test::read_file(folder_.file(name)) == expected) << name;

  relayout(kSource, folder_.file("floats.gguf"), TensorLayout::kPanels, "f32");
  relayout(folder_.file("floats.gguf"), folder_.file("d.gguf"), TensorLayout::kPanels, type());
  const Gguf a(folder_.file("a.gguf")), d(folder_.file("d.gguf"));
  for (const TensorView& tensor : a.reader.tensors())
    EXPECT_TRUE(d.bytes_of(tensor.name) == a.bytes_of(tensor.name)) << tensor.name;
}

TEST_F(Twins, TiedEmbeddingIsPanels) {
  const TempFolder folder;
  relayout(tied(), folder.file("a.gguf"), TensorLayout::kPanels, "q4_0");
  EXPECT_EQ(Gguf(folder.file("a.gguf")).reader.find_tensor("token_embd.weight")->layout,
            TensorLayout::kPanels);
  relayout(folder.file("a.gguf"), folder.file("b.gguf"), TensorLayout::kRows);
  run(tied(), folder.file("c.gguf"), "q4_0");
  EXPECT_TRUE(test::read_file(folder.file("b.gguf")) == test::read_file(folder.file("c.gguf")));
}

TEST(Convert, KeepsFormatsThatItCannotReadWhenOnlyTheLayoutChanges) {
  const TempFolder folder;
  GgufMetadata metadata;
  metadata.set_string("general.architecture", "llama");
  metadata.set_string("quern.mine", "kept");
  const GgufPlan plan(metadata, {{"b.weight", DType::IQ1_S, {16, 256}}, {"a.weight", DType::Q4_0, {33, 64}}});
  {
    GgufWriter writer(folder.file("a.gguf"), plan, metadata, false);
    for (size_t i = 0; i < plan.sizes.size(); ++i) {
      std::vector<uint8_t> bytes(plan.sizes[i]);
      for (size_t k = 0; k < bytes.size(); ++k) bytes[k] = static_cast<uint8_t>(k * 7 % 113);
      writer.write_tensor(i, 0, bytes);
    }
    writer.finish();
  }
  relayout(folder.file("a.gguf"), folder.file("p.gguf"), TensorLayout::kPanels);
  const Gguf p(folder.file("p.gguf"));
  EXPECT_EQ(p.reader.tensors()[0].layout, TensorLayout::kRows);
  EXPECT_EQ(p.reader.tensors()[1].layout, TensorLayout::kPanels);
  relayout(folder.file("p.gguf"), folder.file("b.gguf"), TensorLayout::kRows);
  EXPECT_TRUE(test::read_file(folder.file("b.gguf")) == test::read_file(folder.file("a.gguf")));
}

// A file of tensors of F32 rows, all numbers zero.
std::string write_zeros(const TempFolder& folder, const std::vector<GgufTensorInfo>& tensors) {
  GgufMetadata metadata;
  metadata.set_string("general.architecture", "llama");
  const GgufPlan plan(metadata, tensors);
  GgufWriter(folder.file("zeros.gguf"), plan, metadata, false).finish();
  return folder.file("zeros.gguf");
}

// Rows may be of any length; a thread holds 16 of them, or 48 where panels are turned.
TEST(Convert, MemoryIsCheckedBeforeAnyIsTakenAndAnyFileIsMade) {
  constexpr uint64_t kRowBytes = 4 * 65536;
  const TempFolder folder;
  const std::string rows = write_zeros(
      folder, {{"a.weight", DType::F32, {16, 64}}, {"b.weight", DType::F32, {32, kRowBytes / 4}}});
  const std::string panels = folder.file("panels.gguf"), output = folder.file("out.gguf");
  relayout(rows, panels, TensorLayout::kPanels);
  for (const bool of_panels : {false, true}) {
    const std::string& source = of_panels ? panels : rows;
    const uint64_t thread_bytes = (of_panels ? 48 : 16) * kRowBytes;
    const auto convert_with = [&](uint64_t available, bool dry_run = false) {
      ConvertOptions options;
      options.source = source;
      options.output = output;
      options.n_threads = 8;  // three pieces: as many threads are used
      options.dry_run = dry_run;
      ConvertCallbacks callbacks;
      callbacks.available_memory = [&] { return available; };
      convert(options, callbacks);
    };
    const std::string none = error_of([&] { convert_with(thread_bytes - 1); });
    EXPECT_EQ(error_code, ErrorCode::kResource);
    EXPECT_EQ(none,
              fmt::format("{}: tensor 'b.weight': not enough memory: each of 3 threads needs {} bytes to "
                          "convert 16 rows of 65536 columns at once, {} bytes are available; free memory, "
                          "or convert on a machine that has more",
                          source, thread_bytes, thread_bytes - 1));
    const std::string two = error_of([&] { convert_with(3 * thread_bytes - 1); });
    EXPECT_EQ(error_code, ErrorCode::kResource);
    EXPECT_TRUE(two.ends_with("; --threads 2 would fit")) << two;
    convert_with(0, true);  // writes nothing and takes none
    EXPECT_FALSE(fs::exists(output));
    convert_with(3 * thread_bytes);
    EXPECT_TRUE(test::read_file(output) == test::read_file(rows));
    fs::remove(output);
  }
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"panels.gguf", "zeros.gguf"}));
}

TEST(Convert, NamesABadWeightOfPanelsByItsRow) {
  const TempFolder folder;
  constexpr uint64_t kRows = 33, kColumns = 64;
  const std::string rows = write_zeros(folder, {{"a.weight", DType::F32, {kRows, kColumns}}});
  const std::string panels = folder.file("panels.gguf");
  relayout(rows, panels, TensorLayout::kPanels);
  const std::string good = test::read_file(panels);
  const size_t data = good.size() - 4 * kRows * kColumns;
  const float infinity = std::numeric_limits<float>::infinity();
  // Lanes of a panel are rows: 16 rows' weights of one column, then those of the next. The last row stands
  // alone.
  const struct {
    size_t at;
    uint64_t row, column;
  } cases[] = {{16 * kColumns + 16 * 5 + 3, 19, 5}, {32 * kColumns + 7, 32, 7}};
  for (const auto& [at, row, column] : cases) {
    std::string bad = good;
    std::memcpy(&bad[data + 4 * at], &infinity, sizeof infinity);
    const std::string message =
        error_of([&] { run(folder.write("bad.gguf", bad), folder.file("out.gguf"), "q8_0"); });
    EXPECT_EQ(error_code, ErrorCode::kIntegrity);
    EXPECT_NE(
        message.find(fmt::format("'a.weight': element {} (row {}, column {}) is inf, weights must be finite",
                                 row * kColumns + column, row, column)),
        std::string::npos)
        << message;
    EXPECT_FALSE(fs::exists(folder.file("out.gguf")));
  }
}

}  // namespace
}  // namespace quern
