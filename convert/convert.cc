#include "convert/convert.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <set>
#include <stop_token>
#include <system_error>
#include <thread>
#include <utility>

#include "convert/calibration_keys.h"
#include "convert/checkpoint_folder.h"
#include "convert/source.h"
#include "convert/tensor_transforms.h"
#include "quant/checked_math.h"
#include "quant/gguf_files.h"
#include "quant/gguf_split_writer.h"
#include "quant/importance.h"
#include "quant/machine/stop_signal.h"
#include "quant/output_file.h"
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

// How often the callbacks' stop is asked for at least.
constexpr std::chrono::milliseconds kPollInterval(50);

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
    report_.unwritten = source_.unwritten;
    report_.unread_files = source_.unread_files;
    if (recipe_ == nullptr) tell("formats: those of the source (override: --type)");
    if (source_.lacks_chat_template) tell_of_conversations();
  }

  ConvertReport run() {
    read_importance();
    choose_formats();
    ask_other_encoder();
    const GgufSplitPlan plan = make_plan();
    report_.files = plan.paths(options_.output);
    for (const std::string& file : report_.files) check_output(file);
    name_temporary_files();
    if (options_.dry_run)
      look_for_zeros();
    else
      write(plan);
    name_older_parts();
    return std::move(report_);
  }

 private:
  // Null: formats are kept.
  static const Recipe* choose_recipe(const ConvertOptions& options) {
    std::error_code ignored;
    if (options.type.empty() && !fs::is_directory(options.source, ignored)) {
      if (!options.formats.empty() || !options.importance.empty())
        fail(ErrorCode::kUsage,
             "--tensor-type, --output-type, --embedding-type, --pure and --imatrix change what --type does: "
             "name the type too");
      return nullptr;
    }
    const std::string& type = options.type.empty() ? kDefaultType : options.type;
    if (const Recipe* recipe = find_recipe(type)) return recipe;
    std::string names;
    for (const Recipe& recipe : recipes())
      names += fmt::format("{}{}", names.empty() ? "" : ", ", recipe.name);
    fail(ErrorCode::kUsage, "unknown type '{}': expected one of {}", printable(type), names);
  }

  // Worded as a choice, which -q drops (cli/report.h): most who convert a base model know. What a model was
  // trained on nothing but its template and its repository's name says, config.json least of all.
  void tell_of_conversations() const {
    const std::string_view format = chat_format_of_repository(options_.source);
    tell(fmt::format(
        "{}: no chat template (tokenizer_config.json or chat_template.jinja hold it): {}",
        printable(options_.source, kPathBytes),
        format.empty() ? "a base model needs none; `quern chat` will ask for one (override: --template FILE "
                         "or --chat-format NAME there)"
                       : fmt::format("this repository's model was trained on {} (override: --chat-format {} "
                                     "or --template FILE of `quern chat`)",
                                     format, format)));
  }

  // Parts of the same name that an earlier split into another number of files left: nothing replaces them,
  // and they look as if they belonged to the model.
  void name_older_parts() const {
    if (options_.most_file_bytes == 0 || options_.output.empty()) return;
    std::string_view stem = options_.output;
    if (stem.ends_with(".gguf")) stem.remove_suffix(5);
    std::vector<std::string> older = gguf_parts_of(std::string(stem));
    std::erase_if(older, [&](const std::string& path) {
      const auto is_written = [&](const std::string& file) {
        return fs::path(file).filename() == fs::path(path).filename();
      };
      const auto is_read = [&](const MappedFile& file) { return file.is_same_file(path); };
      return std::any_of(report_.files.begin(), report_.files.end(), is_written) ||
             std::any_of(source_.files.begin(), source_.files.end(), is_read);
    });
    if (!older.empty())
      tell(fmt::format("left from an earlier split, and not of this model: {}{}",
                       printable(older[0], kPathBytes),
                       older.size() == 1 ? "" : fmt::format(" and {} more", older.size() - 1)));
  }

  // Where the file system has no files without a name, one that was killed leaves what it had written.
  void name_temporary_files() const {
    if (options_.output.empty()) return;  // of a dry run
    for (const std::string& file : report_.files)
      for (const std::string& left : temporary_files_of(file))
        tell(fmt::format(
            "{}: left from a convert that was killed (unless one is writing it now): it can be removed",
            printable(left, kPathBytes)));
  }

  // The output must not replace what is being read; everything else about it is checked when it is created.
  void check_output(const std::string& output) const {
    if (output.empty()) return;  // of a dry run
    std::error_code error;
    if (!fs::exists(output, error)) return;
    bool is_input = false;
    for (const MappedFile& file : source_.files) is_input = is_input || file.is_same_file(output);
    // In a checkpoint's folder, its other files: configuration, tokenizer, index.
    for (fs::directory_iterator it(options_.source, error), end; !error && it != end; it.increment(error)) {
      std::error_code ignored;
      is_input =
          is_input || (it->path().extension() != ".gguf" && fs::equivalent(it->path(), output, ignored));
    }
    if (is_input) fail(ErrorCode::kUsage, "{}: the output would replace the input", output);
  }

  // The keys that llama-quantize leaves.
  void read_importance() {
    if (options_.importance.empty()) return;
    importance_.emplace(options_.importance);
    GgufMetadata& metadata = source_.metadata;
    metadata.set_string("quantize.imatrix.file", fs::path(importance_->path()).filename().string());
    if (!importance_->dataset().empty())
      metadata.set_string("quantize.imatrix.dataset", importance_->dataset());
    metadata.set_u32("quantize.imatrix.entries_count", static_cast<uint32_t>(importance_->n_entries()));
    if (importance_->n_chunks() > 0)
      metadata.set_u32("quantize.imatrix.chunks_count", importance_->n_chunks());
  }

  // Importance of a tensor that is to be searched with it; null where all columns count alike. Of the output
  // and the embedding a file need not know: what they are multiplied with is not measured by default.
  const Importance* find_importance(const SourceTensor& tensor, DType to) {
    if (!importance_ || to == tensor.view.dtype || block_format(to).encode_weighted == nullptr)
      return nullptr;
    const bool at_an_end =
        tensor.gguf_name == "output.weight" || tensor.gguf_name.ends_with("token_embd.weight");
    const Importance* found = importance_->find(tensor.gguf_name, tensor.view.shape);
    if (found == nullptr && !at_an_end)
      fail(ErrorCode::kMalformed,
           "{}: tensor '{}' is not among its {} tensors: measure it on this model, or give the tensor a "
           "format "
           "that needs none (--tensor-type)",
           importance_->path(), printable(tensor.gguf_name), importance_->n_entries());
    if (found != nullptr && !found->never_chosen.empty())
      tell(fmt::format(
          "tensor '{}': {} of {} experts were never chosen when {} was measured ({}): their columns "
          "count alike",
          printable(tensor.gguf_name), found->never_chosen.size(), found->n_matrices, importance_->path(),
          fmt::join(found->never_chosen, ", ")));
    return found;
  }

  std::vector<FormatChoice> recipe_formats() const {
    const RecipeModel model = recipe_model(source_.metadata, source_.tied, importance_.has_value());
    return quern::choose_formats(*recipe_, model, options_.formats, recipe_tensors(source_));
  }

  void choose_formats() {
    std::vector<FormatChoice> choices;
    if (recipe_ != nullptr) choices = recipe_formats();
    for (size_t i = 0; i < source_.tensors.size(); ++i) {
      const SourceTensor& tensor = source_.tensors[i];
      const TensorView& view = tensor.view;
      const FormatChoice choice = recipe_ != nullptr ? choices[i] : FormatChoice{view.dtype, view.dtype};
      ConvertedTensor converted;
      converted.name = tensor.gguf_name;
      converted.source_name = view.name;
      converted.shape = view.shape;
      converted.from = view.dtype;
      converted.to = choice.dtype;
      converted.wanted = choice.wanted;
      importances_.push_back(find_importance(tensor, choice.dtype));
      converted.weighted = importances_.back() != nullptr;
      converted.layout =
          choose_layout(options_.layout, tensor.gguf_name, choice.dtype, view.shape, source_.tied);
      converted.bytes_in = view.n_bytes;
      converted.relative_rms_error = std::numeric_limits<double>::quiet_NaN();
      if (choice.dtype != choice.wanted) tell_fallback(converted);
      if (choice.dtype != view.dtype && !block_format(view.dtype).is_float()) ++report_.n_requantized;
      if (recipe_ != nullptr && block_format(view.dtype).decode == nullptr) {
        fail(ErrorCode::kMalformed, "{}: tensor '{}' is {}, which cannot be read as a source",
             options_.source, printable(view.name), block_format(view.dtype).name);
      }
      report_.bytes_in += view.n_bytes;
      report_.n_params += view.n_elements();
      report_.tensors.push_back(std::move(converted));
    }
    tell_requantized();
    tell_of_no_experts();
    // Codes that are others now are not those that a calibration chose.
    if (report_.n_requantized > 0)
      for (const std::string_view key : calibration_keys::kAll) source_.metadata.erase(key);
  }

  void ask_other_encoder() {
    taken_.assign(report_.tensors.size(), false);
    if (callbacks_.other_encoder.prepare)
      taken_ = callbacks_.other_encoder.prepare(report_.tensors, &source_.metadata);
    QUERN_CHECK(taken_.size() == report_.tensors.size());
  }

  // What another encodes, in the layout that was chosen.
  void write_taken(GgufSplitWriter& writer) {
    size_t n_left = static_cast<size_t>(std::count(taken_.begin(), taken_.end(), true));
    if (n_left == 0) return;
    callbacks_.other_encoder.encode([&](std::string_view name, std::span<const uint8_t> rows, double error) {
      const auto found = std::find_if(report_.tensors.begin(), report_.tensors.end(),
                                      [&](const ConvertedTensor& tensor) { return tensor.name == name; });
      QUERN_CHECK(found != report_.tensors.end());
      const auto index = static_cast<size_t>(found - report_.tensors.begin());
      QUERN_CHECK(taken_[index]);
      taken_[index] = false;
      --n_left;
      write_rows(index, rows, writer);
      found->relative_rms_error = error;
      if (callbacks_.on_tensor) callbacks_.on_tensor(*found);
    });
    QUERN_CHECK(n_left == 0);
  }

  void write_rows(size_t index, std::span<const uint8_t> rows, GgufSplitWriter& writer) const {
    const TensorView& view = source_.tensors[index].view;
    const uint64_t row_bytes = target_row_bytes(index);
    QUERN_CHECK(rows.size() == view.rows() * row_bytes);
    if (report_.tensors[index].layout != TensorLayout::kPanels) return writer.write_tensor(index, 0, rows);
    std::vector<uint8_t> panel(kPanelRows * row_bytes);
    for (uint64_t row = 0; row < view.rows(); row += kPanelRows) {
      const size_t n = std::min<uint64_t>(kPanelRows, view.rows() - row);
      const std::span<const uint8_t> group = rows.subspan(row * row_bytes, n * row_bytes);
      if (n == kPanelRows)
        pack_panel(report_.tensors[index].to, group.data(), n, view.columns(), panel.data());
      writer.write_tensor(index, row * row_bytes, n == kPanelRows ? std::span<const uint8_t>(panel) : group);
    }
  }

  void look_for_zeros() {
    const std::optional<GgufValue> types = source_.metadata.find("tokenizer.ggml.token_type");
    std::map<size_t, std::vector<ZeroTail>> tails;  // by file
    for (const SourceTensor& tensor : source_.tensors) {
      if (tensor.make) continue;
      TensorView view = tensor.view;
      view.name = tensor.gguf_name;
      for (ZeroTail& tail : find_zero_tails({view}, types ? &*types : nullptr)) {
        tail.tensor = tensor.view.name;
        tails[tensor.file].push_back(tail);
        report_.zero_tails.push_back(std::move(tail));
      }
    }
    for (const auto& [file, found] : tails) tell(zero_tail_warning(source_.files[file].path(), found));
  }

  void tell_requantized() const {
    if (report_.n_requantized == 0) return;
    std::set<std::string_view> formats;
    for (const ConvertedTensor& tensor : report_.tensors)
      if (tensor.to != tensor.from && !block_format(tensor.from).is_float())
        formats.insert(block_format(tensor.from).name);
    tell(fmt::format(
        "warning: {}: {} of {} tensors are quantized already ({}): what that lost stays lost, and "
        "more is lost on top; convert the original checkpoint where there is one",
        options_.source, report_.n_requantized, report_.tensors.size(), fmt::join(formats, ", ")));
  }

  // A recipe whose own format is for experts' matrices does little for a model without any.
  void tell_of_no_experts() const {
    if (recipe_ == nullptr) return;
    const bool is_for_experts =
        std::any_of(recipe_->rules.begin(), recipe_->rules.end(), [this](const RecipeRule& rule) {
          return rule.where == RuleWhere::kExperts && rule.dtype == recipe_->base;
        });
    const bool has_any =
        std::any_of(report_.tensors.begin(), report_.tensors.end(),
                    [this](const ConvertedTensor& tensor) { return tensor.wanted == recipe_->base; });
    if (!is_for_experts || has_any) return;
    tell(fmt::format("warning: {}: the model has no matrices of experts, which {} is for: nothing becomes {}",
                     printable(options_.source, kPathBytes), recipe_->name,
                     block_format(recipe_->base).name));
  }

  void tell(const std::string& line) const {
    if (callbacks_.notice) callbacks_.notice(line);
  }

  void tell_fallback(const ConvertedTensor& tensor) const {
    const BlockFormat &wanted = block_format(tensor.wanted), &chosen = block_format(tensor.to);
    const std::string line =
        fmt::format("tensor '{}': {} columns are not a multiple of {}, the block of {}",
                    printable(tensor.name), tensor.shape.back(), wanted.block_weights, wanted.name);
    if (options_.strict)
      fail(ErrorCode::kUsage, "{} (without --strict it would become {})", line, chosen.name);
    tell(fmt::format("{}: it becomes {}", line, chosen.name));
  }

  GgufSplitPlan make_plan() {
    std::vector<GgufTensorInfo> infos;
    for (const ConvertedTensor& tensor : report_.tensors)
      infos.push_back({tensor.name, tensor.to, tensor.shape, tensor.layout});
    GgufSplitPlan plan(source_.metadata, infos, source_.alignment, options_.most_file_bytes);
    for (size_t i = 0; i < infos.size(); ++i) {
      report_.tensors[i].bytes_out = plan.tensor_bytes(i);
      report_.tensor_bytes += plan.tensor_bytes(i);
    }
    report_.file_bytes = plan.file_bytes();
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
      if (taken_[i]) continue;
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
    QuantizeTarget target{report_.tensors[tensor].to, report_.tensors[tensor].layout};
    if (const Importance* importance = importances_[tensor]; importance != nullptr) {
      const TensorView& view = source_.tensors[tensor].view;
      target.importance = importance->weights.data();
      target.rows_per_matrix = view.rows() * view.columns() / importance->weights.size();
    }
    return target;
  }

  // Floats of a piece that is made of other tensors.
  uint64_t made_bytes(const Piece& piece) const {
    const SourceTensor& tensor = source_.tensors[piece.tensor];
    return tensor.make ? (piece.row_end - piece.row_begin) * source_row_bytes(tensor.view) : 0;
  }

  // That a thread needs for a piece: the bytes it writes, then quantize_rows' scratch.
  uint64_t memory_bytes(const Piece& piece) const {
    const uint64_t scratch =
        quantize_scratch_bytes(source_.tensors[piece.tensor].view, target_of(piece.tensor));
    const uint64_t made = made_bytes(piece);
    uint64_t bytes = 0;
    return checked_add(target_bytes(piece), scratch, &bytes) && checked_add(bytes, made, &bytes) ? bytes
                                                                                                 : UINT64_MAX;
  }

  void write(const GgufSplitPlan& plan) {
    const Clock::time_point start = Clock::now();
    const std::vector<Piece> pieces = cut_into_pieces();
    const int n_threads =
        static_cast<int>(std::clamp<size_t>(pieces.size(), 1, static_cast<size_t>(options_.n_threads)));
    const uint64_t thread_bytes = plan_memory(pieces, n_threads);
    look_for_zeros();
    make_row_maps();
    GgufSplitWriter writer(options_.output, plan, options_.force);
    convert_pieces(pieces, n_threads, thread_bytes, writer);
    write_taken(writer);
    report_.seconds = seconds_since(start);
    writer.finish(&report_.fsync_seconds);
  }

  // Bytes of memory for each thread: what the largest piece needs. Nothing in a file keeps its rows from
  // being so long that 16 of them are more than there is, and memory that is promised and then not there ends
  // the process without a word.
  uint64_t plan_memory(const std::vector<Piece>& pieces, int n_threads) const {
    uint64_t bytes = 0;
    const Piece* largest = nullptr;
    for (const Piece& piece : pieces) {
      if (memory_bytes(piece) <= bytes) continue;
      bytes = memory_bytes(piece);
      largest = &piece;
    }
    const uint64_t available = callbacks_.available_memory ? callbacks_.available_memory() : UINT64_MAX;
    if (largest == nullptr || bytes <= available / static_cast<uint64_t>(n_threads)) return bytes;
    const SourceTensor& tensor = source_.tensors[largest->tensor];
    fail(ErrorCode::kResource,
         "{}: tensor '{}': not enough memory: each of {} threads needs {} bytes to convert {} rows of {} "
         "columns at once, {} bytes are available; {}",
         source_.files[tensor.file].path(), printable(tensor.view.name), n_threads, bytes,
         largest->row_end - largest->row_begin, tensor.view.columns(), available,
         bytes <= available ? fmt::format("--threads {} would fit", available / bytes)
                            : "free memory, or convert on a machine that has more");
  }

  void make_row_maps() {
    for (const SourceTensor& tensor : source_.tensors) {
      if (tensor.permuted_heads == 0) continue;
      std::vector<uint64_t>& map = row_maps_[{tensor.permuted_heads, tensor.view.rows()}];
      if (!map.empty()) continue;
      map = interleaved_row_map(tensor.permuted_heads,
                                static_cast<uint32_t>(tensor.view.rows() / tensor.permuted_heads));
    }
  }

  // Null: rows keep their order.
  const uint64_t* row_map(const SourceTensor& tensor) const {
    if (tensor.permuted_heads == 0) return nullptr;
    return row_maps_.at({tensor.permuted_heads, tensor.view.rows()}).data();
  }

  // Every thread of the pool takes a piece, reads, converts and writes it, and takes the next: nobody waits
  // for anybody, and memory is one piece per thread. The calling thread takes none: it calls the callbacks.
  void convert_pieces(const std::vector<Piece>& pieces, int n_threads, uint64_t thread_bytes,
                      GgufSplitWriter& writer) {
    std::vector<std::unique_ptr<uint8_t[]>> buffers(static_cast<size_t>(n_threads));
    for (auto& buffer : buffers) buffer = std::make_unique_for_overwrite<uint8_t[]>(thread_bytes);

    std::vector<PieceState> states(pieces.size());
    std::atomic<size_t> next{0};
    std::stop_source give_up;
    std::mutex mutex;
    std::condition_variable changed;
    bool all_done = false;  // with the mutex held, as failure
    std::exception_ptr failure;
    const auto convert_all = [&] {
      ThreadPool(n_threads).broadcast([&](int thread) noexcept {
        try {
          for (size_t i; !give_up.stop_requested() && (i = next.fetch_add(1)) < pieces.size();) {
            read_ahead(pieces, i);
            uint8_t* const memory = buffers[static_cast<size_t>(thread)].get();
            states[i].result = convert_piece(pieces[i], {memory, memory_bytes(pieces[i])}, writer);
            if (states[i].result.bad_element >= 0) give_up.request_stop();
            states[i].done = true;
            { const std::lock_guard lock(mutex); }  // the calling thread looks, or waits already
            changed.notify_one();
          }
        } catch (...) {
          const std::lock_guard lock(mutex);
          if (!failure) failure = std::current_exception();
          give_up.request_stop();
        }
      });
      const std::lock_guard lock(mutex);
      all_done = true;
      changed.notify_one();
    };

    Finished finished;
    {
      const std::jthread workers = start_thread(convert_all);
      try {
        for (bool wait = true; wait;) {
          std::unique_lock lock(mutex);
          changed.wait_for(lock, kPollInterval, [&] {
            return all_done || (finished.pieces < pieces.size() && states[finished.pieces].done);
          });
          wait = !all_done;
          lock.unlock();
          if (wait) report_finished(pieces, states, &finished);
        }
      } catch (...) {
        give_up.request_stop();
        throw;
      }
    }
    if (failure) std::rethrow_exception(failure);
    report_finished(pieces, states, &finished);
  }

  static std::jthread start_thread(const std::function<void()>& body) try {
    return std::jthread(body);
  } catch (const std::system_error& error) {
    fail(ErrorCode::kResource, "cannot start a thread: {}", error.what());
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
    if (tensor.make) return;  // its rows come from here and there
    const MappedFile& file = source_.files[tensor.file];
    const uint64_t row_bytes = source_row_bytes(tensor.view);
    const auto begin =
        static_cast<uint64_t>(tensor.view.data - file.bytes().data()) + piece.row_begin * row_bytes;
    (file.*advice)(begin, (piece.row_end - piece.row_begin) * row_bytes);
  }

  QuantizeResult convert_piece(const Piece& piece, std::span<uint8_t> memory, GgufSplitWriter& writer) const {
    const SourceTensor& tensor = source_.tensors[piece.tensor];
    const std::span<uint8_t> out = memory.first(target_bytes(piece)), scratch = memory.subspan(out.size());
    const QuantizeResult result = tensor.make
                                      ? convert_made(piece, scratch, out)
                                      : quantize_rows(tensor.view, target_of(piece.tensor), piece.row_begin,
                                                      piece.row_end, row_map(tensor), scratch, out);
    if (result.bad_element < 0)
      writer.write_tensor(piece.tensor, piece.row_begin * target_row_bytes(piece.tensor), out);
    advise(piece, &MappedFile::done_with);
    return result;
  }

  QuantizeResult convert_made(const Piece& piece, std::span<uint8_t> memory, std::span<uint8_t> out) const {
    const SourceTensor& tensor = source_.tensors[piece.tensor];
    const uint64_t n_rows = piece.row_end - piece.row_begin, columns = tensor.view.columns();
    const std::vector<float> rows = make_rows(tensor, piece.row_begin, piece.row_end);
    const TensorView view{tensor.view.name,
                          DType::F32,
                          {n_rows, columns},
                          reinterpret_cast<const uint8_t*>(rows.data()),
                          rows.size() * sizeof(float)};
    QuantizeTarget target = target_of(piece.tensor);
    target.first_row = piece.row_begin;
    QuantizeResult result = quantize_rows(view, target, 0, n_rows, nullptr, memory, out);
    if (result.bad_element >= 0) result.bad_element += static_cast<int64_t>(piece.row_begin * columns);
    return result;
  }

  static std::vector<float> make_rows(const SourceTensor& tensor, uint64_t begin, uint64_t end) {
    const uint64_t columns = tensor.view.columns();
    std::vector<float> rows((end - begin) * columns);
    tensor.make(tensor.sources, begin, end, columns, rows.data());
    return rows;
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
    // Its block alone: rows may be long.
    const uint64_t block = column / format.block_weights, group = row / kPanelRows * kPanelRows;
    std::vector<uint8_t> bytes(format.block_bytes);
    std::vector<float> values(format.block_weights);
    if (tensor.make) {
      const std::vector<float> made = make_rows(tensor, row, row + 1);
      std::memcpy(bytes.data(), &made[column], sizeof(float));
    } else if (view.layout == TensorLayout::kPanels && group + kPanelRows <= view.rows()) {
      unpack_row_blocks(view.dtype, view.data + group * source_row_bytes(view), row - group, block, block + 1,
                        bytes.data());
    } else {
      std::memcpy(bytes.data(), view.data + row * source_row_bytes(view) + block * format.block_bytes,
                  bytes.size());
    }
    format.decode(bytes.data(), 1, values.data());
    const float value = values[column % format.block_weights];
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
  std::optional<ImportanceFile> importance_;
  std::vector<const Importance*> importances_;  // of the tensors; null: columns count alike
  std::map<std::pair<uint32_t, uint64_t>, std::vector<uint64_t>> row_maps_;  // by heads and rows
  std::vector<bool> taken_;  // tensors that another encoder has yet to write
};

}  // namespace

ConvertReport convert(const ConvertOptions& options, const ConvertCallbacks& callbacks) {
  ConvertOptions found = options;
  found.source = find_source(options.source, callbacks.notice);
  return Conversion(found, callbacks).run();
}

}  // namespace quern
