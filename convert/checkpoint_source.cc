#include "convert/checkpoint_source.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>

#include "convert/source.h"
#include "quant/gguf_writer.h"
#include "quant/machine/address_range.h"
#include "quant/panel_layout.h"
#include "quant/parallel.h"
#include "quant/quantize.h"
#include "quant/recipe.h"

namespace quern {
namespace {

constexpr uint64_t kPieceBytes = 2u << 20;  // of a tensor, that a thread converts at once

const Recipe& float_recipe(std::string_view type) {
  const Recipe* const recipe = find_recipe(type);
  QUERN_CHECK(recipe != nullptr);
  return *recipe;
}

std::vector<GgufTensorInfo> describe(const ConversionSource& source, const Recipe& recipe) {
  const std::vector<RecipeTensor> tensors = recipe_tensors(source);
  const RecipeModel model = recipe_model(source.metadata, source.tied, /*has_importance=*/false);
  const std::vector<FormatChoice> choices = choose_formats(recipe, model, {}, tensors);
  std::vector<GgufTensorInfo> infos;
  for (size_t i = 0; i < tensors.size(); ++i)
    infos.push_back({source.tensors[i].gguf_name, choices[i].dtype, tensors[i].shape, TensorLayout::kRows});
  return infos;
}

class CheckpointSource : public TensorSource {
 public:
  CheckpointSource(const ConvertOptions& options, const Recipe& recipe, const ConvertCallbacks& callbacks)
      : source_(open_source(options, &recipe, callbacks)),
        plan_(source_.metadata, describe(source_, recipe), source_.alignment),
        memory_(plan_.file_size, printable(options.source, kPathBytes)),
        gguf_(with_header(), options.source, callbacks.notice),
        pool_(std::max(options.n_threads, 1)) {
    for (size_t i = 0; i < source_.tensors.size(); ++i) {
      if (block_format(source_.tensors[i].view.dtype).decode == nullptr)
        fail(ErrorCode::kMalformed, "{}: tensor '{}' is {}, which cannot be read as a source", options.source,
             printable(source_.tensors[i].view.name), block_format(source_.tensors[i].view.dtype).name);
      index_[gguf_.tensors()[i].data] = i;
    }
  }

  const GgufReader& gguf() const override { return gguf_; }
  uint64_t load_bytes() const override { return *std::max_element(plan_.sizes.begin(), plan_.sizes.end()); }

  void load(const TensorView& view) override {
    const size_t index = index_.at(view.data);
    const SourceTensor& tensor = source_.tensors[index];
    const QuantizeTarget target{plan_.tensors[index].dtype, TensorLayout::kRows};
    const uint64_t n_rows = tensor.view.rows(),
                   row_bytes = block_format(target.dtype).row_bytes(tensor.view.columns());
    const uint64_t* const map = row_map(tensor);
    uint8_t* const out = memory_.data() + plan_.offsets[index];
    std::atomic<int64_t> bad{-1};
    const uint64_t piece = std::min(rows_of_a_piece(tensor, row_bytes), n_rows);
    std::vector<std::vector<float>> made(static_cast<size_t>(pool_.size()));
    if (tensor.make)
      for (std::vector<float>& rows : made) rows.resize(piece * tensor.view.columns());
    pool_.parallel_for(n_rows, piece, [&](int thread, size_t begin, size_t end) noexcept {
      const std::span<uint8_t> rows(out + begin * row_bytes, (end - begin) * row_bytes);
      const int64_t element =
          convert_rows(tensor, target, begin, end, map, made[static_cast<size_t>(thread)], rows);
      int64_t known = bad;
      while (element >= 0 && (known < 0 || element < known) && !bad.compare_exchange_weak(known, element)) {
      }
    });
    if (bad >= 0)
      fail(ErrorCode::kIntegrity, "{}: tensor '{}': element {} (row {}, column {}) is not finite",
           source_.files[tensor.file].path(), printable(tensor.view.name), bad.load(),
           static_cast<uint64_t>(bad) / tensor.view.columns(),
           static_cast<uint64_t>(bad) % tensor.view.columns());
  }
  void release(const TensorView& tensor) noexcept override { done_with(tensor.data, tensor.n_bytes); }
  void will_need(const uint8_t* begin, uint64_t n_bytes) const noexcept override {
    const auto tensor = std::prev(index_.upper_bound(begin));
    const SourceTensor& from = source_.tensors[tensor->second];
    if (from.make || n_bytes == 0) return;
    const MappedFile& file = source_.files[from.file];
    file.will_need(static_cast<uint64_t>(from.view.data - file.bytes().data()), from.view.n_bytes);
  }
  void done_with(const uint8_t* begin, uint64_t n_bytes) const noexcept override {
    memory_.give_back(begin, n_bytes);
  }

 private:
  std::span<const uint8_t> with_header() {
    const std::vector<uint8_t> header = encode_gguf_header(plan_, source_.metadata);
    std::memcpy(memory_.data(), header.data(), header.size());
    return memory_.bytes();
  }

  // Whole heads where rows move within heads.
  static uint64_t rows_of_a_piece(const SourceTensor& tensor, uint64_t row_bytes) {
    const uint64_t heads = tensor.permuted_heads;
    const uint64_t grain = std::lcm(kPanelRows, heads == 0 ? 1 : tensor.view.rows() / heads);
    return std::max<uint64_t>(kPieceBytes / row_bytes / grain, 1) * grain;
  }

  // Null: rows keep their order.
  const uint64_t* row_map(const SourceTensor& tensor) {
    if (tensor.permuted_heads == 0) return nullptr;
    std::vector<uint64_t>& map = row_maps_[{tensor.permuted_heads, tensor.view.rows()}];
    if (map.empty())
      map = interleaved_row_map(tensor.permuted_heads,
                                static_cast<uint32_t>(tensor.view.rows() / tensor.permuted_heads));
    return map.data();
  }

  // made: room for the rows of a tensor that is made of others. Returns the first element that is not finite,
  // or -1.
  int64_t convert_rows(const SourceTensor& tensor, const QuantizeTarget& target, uint64_t begin, uint64_t end,
                       const uint64_t* map, std::span<float> made, std::span<uint8_t> out) const {
    if (!tensor.make) {
      const QuantizeResult result = quantize_rows(tensor.view, target, begin, end, map, {}, out);
      const MappedFile& file = source_.files[tensor.file];
      const uint64_t row_bytes = block_format(tensor.view.dtype).row_bytes(tensor.view.columns());
      file.done_with(static_cast<uint64_t>(tensor.view.data - file.bytes().data()) + begin * row_bytes,
                     (end - begin) * row_bytes);
      return result.bad_element;
    }
    const uint64_t columns = tensor.view.columns();
    tensor.make(tensor.sources, begin, end, columns, made.data());
    const TensorView view{tensor.view.name,
                          DType::F32,
                          {end - begin, columns},
                          reinterpret_cast<const uint8_t*>(made.data()),
                          (end - begin) * columns * sizeof(float)};
    const int64_t bad = quantize_rows(view, target, 0, end - begin, nullptr, {}, out).bad_element;
    return bad < 0 ? bad : bad + static_cast<int64_t>(begin * columns);
  }

  ConversionSource source_;
  GgufPlan plan_;
  AddressRange memory_;
  GgufReader gguf_;
  ThreadPool pool_;
  std::map<const uint8_t*, size_t> index_;  // of tensors, by where their bytes are
  std::map<std::pair<uint32_t, uint64_t>, std::vector<uint64_t>> row_maps_;  // by heads and rows
};

}  // namespace

std::unique_ptr<TensorSource> open_checkpoint_as_bf16(const ConvertOptions& options,
                                                      const ConvertCallbacks& callbacks) {
  return std::make_unique<CheckpointSource>(options, float_recipe("bf16"), callbacks);
}

std::unique_ptr<TensorSource> open_checkpoint_as_f32(const ConvertOptions& options,
                                                     const ConvertCallbacks& callbacks) {
  return std::make_unique<CheckpointSource>(options, float_recipe("f32"), callbacks);
}

}  // namespace quern
