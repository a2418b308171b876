#include "convert/convert.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <exception>
#include <filesystem>
#include <limits>
#include <memory>
#include <mutex>
#include <numeric>

#include "convert/source.h"
#include "convert/tensor_transforms.h"
#include "quant/gguf_writer.h"
#include "quant/panel_layout.h"
#include "quant/parallel.h"
#include "quant/quantize.h"
#include "quant/recipe.h"

namespace quern {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

const std::string kDefaultType = "q4_0";  // of a checkpoint

// Bytes of one piece, on the larger of its two sides. Large enough that taking one and writing it cost
// nothing beside converting it; small enough that an interruption is noticed at once with the slowest
// encoder.
constexpr uint64_t kPieceBytes = 2u << 20;

// Pieces that the disk is asked for before they are needed, beside those that the threads are at: enough to
// keep a network volume's queue filled.
constexpr size_t kPiecesAhead = 16;

// Rows [row_begin, row_end) of one tensor: what is read, converted and written at once.
struct Piece {
  size_t tensor;
  uint64_t row_begin, row_end;
};

// `done` is set last: who sees it sees the result.
struct PieceState {
  QuantizeResult result;
  std::atomic<bool> done{false};
};

// What has been told of: pieces in their order, and of the tensor that the last one belongs to its sums.
struct Finished {
  size_t pieces = 0;
  uint64_t bytes = 0;
  double squared_error = 0, squared_source = 0;
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

uint64_t source_row_bytes(const TensorView& view) {
  return block_format(view.dtype).row_bytes(view.columns());
}

class Conversion {
 public:
  Conversion(const ConvertOptions& options, const ConvertCallbacks& callbacks)
      : options_(options),
        callbacks_(callbacks),
        recipe_(choose_recipe(options)),
        source_(open_source(options, recipe_, callbacks)) {
    QUERN_CHECK(options.n_threads >= 1);
    report_.type = recipe_ != nullptr ? std::string(recipe_->name) : "kept";
    if (recipe_ == nullptr && callbacks_.notice)
      callbacks_.notice("formats: those of the source (override: --type)");
  }

  ConvertReport run() {
    check_output();
    choose_formats();
    const GgufPlan plan = make_plan();
    if (!options_.dry_run) write(plan);
    return std::move(report_);
  }

 private:
  // Null: formats are kept.
  static const Recipe* choose_recipe(const ConvertOptions& options) {
    std::error_code ignored;
    if (options.type.empty() && !fs::is_directory(options.source, ignored)) return nullptr;
    const std::string& type = options.type.empty() ? kDefaultType : options.type;
    if (const Recipe* recipe = find_recipe(type)) return recipe;
    std::string names;
    for (const Recipe& recipe : recipes())
      names += fmt::format("{}{}", names.empty() ? "" : ", ", recipe.name);
    fail(ErrorCode::kUsage, "unknown type '{}': expected one of {}", printable(type), names);
  }

  // The output must not replace what is being read; everything else about it is checked when it is created.
  void check_output() const {
    if (options_.output.empty()) return;  // of a dry run
    std::error_code error;
    if (!fs::exists(options_.output, error)) return;
    bool is_input = false;
    for (const MappedFile& file : source_.files) is_input = is_input || file.is_same_file(options_.output);
    // In a checkpoint's folder, its other files: configuration, tokenizer, index.
    for (fs::directory_iterator it(options_.source, error), end; !error && it != end; it.increment(error)) {
      std::error_code ignored;
      is_input = is_input ||
                 (it->path().extension() != ".gguf" && fs::equivalent(it->path(), options_.output, ignored));
    }
    if (is_input) fail(ErrorCode::kUsage, "{}: the output would replace the input", options_.output);
  }

  void choose_formats() {
    for (const SourceTensor& tensor : source_.tensors) {
      const TensorView& view = tensor.view;
      const FormatChoice choice = recipe_ != nullptr
                                      ? choose_format(*recipe_, tensor.gguf_name, view.shape, source_.tied)
                                      : FormatChoice{view.dtype, view.dtype};
      ConvertedTensor converted;
      converted.name = tensor.gguf_name;
      converted.source_name = view.name;
      converted.shape = view.shape;
      converted.from = view.dtype;
      converted.to = choice.dtype;
      converted.wanted = choice.wanted;
      converted.layout =
          choose_layout(options_.layout, tensor.gguf_name, choice.dtype, view.shape, source_.tied);
      converted.bytes_in = view.n_bytes;
      converted.relative_rms_error = std::numeric_limits<double>::quiet_NaN();
      if (choice.dtype != choice.wanted) tell_fallback(converted);
      if (recipe_ != nullptr && block_format(view.dtype).decode == nullptr) {
        fail(ErrorCode::kMalformed, "{}: tensor '{}' is {}, which cannot be read as a source",
             options_.source, printable(view.name), block_format(view.dtype).name);
      }
      report_.bytes_in += view.n_bytes;
      report_.n_params += view.n_elements();
      report_.tensors.push_back(std::move(converted));
    }
  }

  void tell_fallback(const ConvertedTensor& tensor) const {
    const BlockFormat &wanted = block_format(tensor.wanted), &chosen = block_format(tensor.to);
    const std::string line =
        fmt::format("tensor '{}': {} columns are not a multiple of {}, the block of {}",
                    printable(tensor.name), tensor.shape.back(), wanted.block_weights, wanted.name);
    if (options_.strict)
      fail(ErrorCode::kUsage, "{} (without --strict it would become {})", line, chosen.name);
    if (callbacks_.notice) callbacks_.notice(fmt::format("{}: it becomes {}", line, chosen.name));
  }

  GgufPlan make_plan() {
    std::vector<GgufTensorInfo> infos;
    for (const ConvertedTensor& tensor : report_.tensors)
      infos.push_back({tensor.name, tensor.to, tensor.shape, tensor.layout});
    GgufPlan plan(source_.metadata, std::move(infos), source_.alignment);
    for (size_t i = 0; i < plan.sizes.size(); ++i) {
      report_.tensors[i].bytes_out = plan.sizes[i];
      report_.tensor_bytes += plan.sizes[i];
    }
    report_.file_bytes = plan.file_size;
    if (report_.n_params > 0) {
      report_.bits_per_weight =
          8.0 * static_cast<double>(report_.tensor_bytes) / static_cast<double>(report_.n_params);
    }
    return plan;
  }

  // Whole panels. Whole heads where rows move within heads, so that a piece's rows come from the same range
  // of the source.
  std::vector<Piece> cut_into_pieces() const {
    std::vector<Piece> pieces;
    for (size_t i = 0; i < source_.tensors.size(); ++i) {
      const SourceTensor& tensor = source_.tensors[i];
      const uint64_t n_rows = tensor.view.rows();
      const uint64_t grain =
          std::lcm(kPanelRows, tensor.permuted_heads == 0 ? 1 : n_rows / tensor.permuted_heads);
      const uint64_t row_bytes = std::max(source_row_bytes(tensor.view), target_row_bytes(i));
      const uint64_t rows = std::max<uint64_t>(kPieceBytes / row_bytes / grain, 1) * grain;
      for (uint64_t row = 0; row < n_rows; row += rows)
        pieces.push_back({i, row, std::min(row + rows, n_rows)});
    }
    return pieces;
  }

  uint64_t target_row_bytes(size_t tensor) const {
    return block_format(report_.tensors[tensor].to).row_bytes(source_.tensors[tensor].view.columns());
  }

  uint64_t target_bytes(const Piece& piece) const {
    return (piece.row_end - piece.row_begin) * target_row_bytes(piece.tensor);
  }

  QuantizeTarget target_of(size_t tensor) const {
    return {report_.tensors[tensor].to, report_.tensors[tensor].layout};
  }

  // That a thread needs for a piece: the bytes it writes, then quantize_rows' scratch.
  uint64_t memory_bytes(const Piece& piece) const {
    return target_bytes(piece) +
           quantize_scratch_bytes(source_.tensors[piece.tensor].view, target_of(piece.tensor));
  }

  void write(const GgufPlan& plan) {
    const Clock::time_point start = Clock::now();
    GgufWriter writer(options_.output, plan, source_.metadata, options_.force);
    convert_pieces(cut_into_pieces(), writer);
    report_.seconds = seconds_since(start);
    writer.finish(&report_.fsync_seconds);
  }

  // Every thread takes a piece, reads, converts and writes it, and takes the next: nobody waits for anybody,
  // and memory is one piece per thread. Callbacks are called by this thread, the first of them.
  void convert_pieces(const std::vector<Piece>& pieces, GgufWriter& writer) {
    uint64_t largest = 0;
    for (const Piece& piece : pieces) largest = std::max(largest, memory_bytes(piece));
    std::vector<std::unique_ptr<uint8_t[]>> buffers(static_cast<size_t>(options_.n_threads));
    for (auto& buffer : buffers) buffer = std::make_unique_for_overwrite<uint8_t[]>(largest);

    std::vector<PieceState> states(pieces.size());
    Finished finished;
    std::atomic<size_t> next{0};
    std::atomic<bool> given_up{false};
    std::mutex mutex;
    std::exception_ptr failure;
    parallel_region(options_.n_threads, [&](int thread) noexcept {
      try {
        for (size_t i; !given_up && (i = next.fetch_add(1)) < pieces.size();) {
          read_ahead(pieces, i);
          uint8_t* const memory = buffers[static_cast<size_t>(thread)].get();
          states[i].result = convert_piece(pieces[i], {memory, memory_bytes(pieces[i])}, writer);
          if (states[i].result.bad_element >= 0) given_up = true;
          states[i].done = true;
          if (thread == 0) report_finished(pieces, states, &finished);
        }
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
        given_up = true;
      }
    });
    if (failure) std::rethrow_exception(failure);
    report_finished(pieces, states, &finished);
  }

  // Before piece i: at the start the first pieces, later one more each time.
  void read_ahead(const std::vector<Piece>& pieces, size_t i) const {
    const size_t ahead = kPiecesAhead + static_cast<size_t>(options_.n_threads);
    const size_t end = std::min(i + ahead + 1, pieces.size());
    for (size_t next = i == 0 ? 0 : i + ahead; next < end; ++next) {
      advise(pieces[next], &MappedFile::will_need);
    }
  }

  void advise(const Piece& piece, void (MappedFile::*advice)(uint64_t, uint64_t) const noexcept) const {
    const SourceTensor& tensor = source_.tensors[piece.tensor];
    const MappedFile& file = source_.files[tensor.file];
    const uint64_t row_bytes = source_row_bytes(tensor.view);
    const auto begin =
        static_cast<uint64_t>(tensor.view.data - file.bytes().data()) + piece.row_begin * row_bytes;
    (file.*advice)(begin, (piece.row_end - piece.row_begin) * row_bytes);
  }

  QuantizeResult convert_piece(const Piece& piece, std::span<uint8_t> memory, GgufWriter& writer) const {
    const SourceTensor& tensor = source_.tensors[piece.tensor];
    const std::span<uint8_t> out = memory.first(target_bytes(piece)), scratch = memory.subspan(out.size());
    std::vector<uint64_t> row_map;  // empty: rows keep their order
    if (tensor.permuted_heads > 0) {
      row_map = interleaved_row_map(tensor.permuted_heads,
                                    static_cast<uint32_t>(tensor.view.rows() / tensor.permuted_heads));
    }
    const QuantizeResult result =
        quantize_rows(tensor.view, target_of(piece.tensor), piece.row_begin, piece.row_end,
                      row_map.empty() ? nullptr : row_map.data(), scratch, out);
    if (result.bad_element < 0)
      writer.write_tensor(piece.tensor, piece.row_begin * target_row_bytes(piece.tensor), out);
    advise(piece, &MappedFile::done_with);
    return result;
  }

  // Tells of the pieces that are done up to the first one that is not, in their order.
  void report_finished(const std::vector<Piece>& pieces, const std::vector<PieceState>& states,
                       Finished* finished) {
    for (; finished->pieces < pieces.size() && states[finished->pieces].done; ++finished->pieces) {
      const Piece& piece = pieces[finished->pieces];
      const SourceTensor& tensor = source_.tensors[piece.tensor];
      ConvertedTensor& converted = report_.tensors[piece.tensor];
      const QuantizeResult& result = states[finished->pieces].result;
      // All pieces before it were begun before it: this is the first bad weight of the file.
      if (result.bad_element >= 0)
        refuse_element(tensor, converted.to, static_cast<uint64_t>(result.bad_element));
      if (piece.row_begin == 0) finished->squared_error = finished->squared_source = 0;
      finished->squared_error += result.squared_error;
      finished->squared_source += result.squared_source;
      finished->bytes += (piece.row_end - piece.row_begin) * source_row_bytes(tensor.view);
      if (callbacks_.on_progress) {
        callbacks_.on_progress({piece.tensor, report_.tensors.size(), finished->bytes, report_.bytes_in});
      }
      if (piece.row_end != tensor.view.rows()) continue;
      // A tensor of zeros is stored exactly.
      converted.relative_rms_error =
          finished->squared_source > 0 ? std::sqrt(finished->squared_error / finished->squared_source) : 0.0;
      if (callbacks_.on_tensor) callbacks_.on_tensor(converted);
    }
    if (callbacks_.stop && callbacks_.stop()) throw Interrupted{};
  }

  [[noreturn]] void refuse_element(const SourceTensor& tensor, DType target, uint64_t element) const {
    const TensorView& view = tensor.view;
    const BlockFormat& format = block_format(view.dtype);
    const uint64_t row = element / view.columns(), column = element % view.columns();
    std::vector<float> values(view.columns());
    std::vector<uint8_t> scratch(kPanelRows * source_row_bytes(view));
    const uint8_t* group = rows_of_group(view, row / kPanelRows * kPanelRows, scratch.data());
    format.decode(group + row % kPanelRows * source_row_bytes(view), view.columns() / format.block_weights,
                  values.data());
    const float value = values[column];
    fail(ErrorCode::kIntegrity, "{}: tensor '{}': element {} (row {}, column {}) is {}{}",
         source_.files[tensor.file].path(), printable(view.name), element, row, column, value,
         std::isfinite(value) ? fmt::format(", in a block that {} cannot hold", block_format(target).name)
                              : std::string(", weights must be finite"));
  }

  const ConvertOptions& options_;
  const ConvertCallbacks& callbacks_;
  const Recipe* const recipe_;
  ConversionSource source_;
  ConvertReport report_;
};

}  // namespace

ConvertReport convert(const ConvertOptions& options, const ConvertCallbacks& callbacks) {
  return Conversion(options, callbacks).run();
}

}  // namespace quern
