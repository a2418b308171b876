#include "cli/calibrated_conversion.h"

#include <algorithm>
#include <filesystem>

#include "cli/build_info.h"
#include "cli/model_source.h"
#include "cli/report.h"
#include "cli/text_input.h"
#include "convert/calibration_keys.h"
#include "convert/source.h"
#include "quant/calibrated/calibrated_encoder.h"
#include "quant/format_size.h"
#include "quant/hash128.h"
#include "quant/machine/memory.h"
#include "runtime/calibration/stages.h"

namespace quern {
namespace {

// Tokens where nothing is said: more help little, and time grows with them.
constexpr uint64_t kTokensOfSmallModels = 65536, kTokensOfLargeModels = 16384;
constexpr uint64_t kLargeModel = 1'000'000'000;  // weights

std::string state_folder(const ConvertOptions& convert) { return convert.output + ".calibration"; }

bool is_layer_matrix(const ConvertedTensor& tensor) {
  // Writers of GGUF pad vectors with dimensions of 1.
  return tensor.name.starts_with("blk.") && without_outer_ones(tensor.shape, 1).size() >= 2;
}

}  // namespace

void CalibrationArguments::declare(Arguments& arguments) {
  arguments.flag(
      "--calibrate",
      "Encode the layers by what they do on a text, not by their weights alone: fewer errors in the "
      "same bytes, and minutes to hours instead of seconds (a text comes with quern)",
      &calibrate);
  arguments.texts("--calibrate-text", "FILE",
                  "A text to calibrate on instead, like what the model will read; several are joined. Means "
                  "--calibrate",
                  &texts);
  arguments.integer<uint64_t>("--calibrate-tokens",
                              "Tokens of it that are used at most (default 65536, of models beyond a billion "
                              "weights 16384)",
                              2 * Calibration::kPieceTokens, uint64_t{1} << 24, &max_tokens);
  arguments.option(
      "--calibrate-strength", "X",
      "How much of the errors of earlier matrices a later one makes good, 0 to 1 (default 0.5)",
      [this](std::string_view name, const std::string& text) { strength = parse_number(name, text, 0, 1); });
  arguments.option("--damping", "X",
                   "What is added to the diagonal of the inputs' Gram matrix, in parts of its mean (default "
                   "0.1): more trusts the text less",
                   [this](std::string_view name, const std::string& text) {
                     damping = parse_number(name, text, 1e-4, 1e4);
                   });
  arguments.flag(
      "--resume",
      "Go on with an interrupted --calibrate of the same target and options, behind the last layer "
      "that was done (OUT.calibration)",
      &resume);
}

void CalibrationArguments::check(const ConvertOptions& convert) {
  calibrate = calibrate || !texts.empty();
  if (!calibrate) {
    if (max_tokens || strength || damping || resume)
      fail(ErrorCode::kUsage,
           "--calibrate-tokens, --calibrate-strength, --damping and --resume change what --calibrate does: "
           "give that too");
    return;
  }
  if (!convert.importance.empty())
    fail(ErrorCode::kUsage,
         "--imatrix and --calibrate do not go together: calibrating measures the importance of the columns "
         "itself");
  std::error_code ignored;
  if (convert.type.empty() && !std::filesystem::is_directory(find_source(convert.source, {}), ignored))
    fail(ErrorCode::kUsage, "--calibrate chooses the codes of a quantized format: name it with --type");
}

CalibratedConversion::CalibratedConversion(const CalibrationArguments& arguments,
                                           const ConvertOptions& convert, std::function<bool()> stop)
    : arguments_(arguments), convert_(convert), stop_(std::move(stop)) {}
CalibratedConversion::~CalibratedConversion() = default;

OtherEncoder CalibratedConversion::encoder() {
  return {[this](std::span<const ConvertedTensor> tensors, GgufMetadata* metadata) {
            return prepare(tensors, metadata);
          },
          [this](const WriteRowsFn& write) { encode(write); }};
}

// The original, as floats: BF16 where that is what it is.
std::unique_ptr<Model> CalibratedConversion::load(std::span<const ConvertedTensor> tensors) const {
  ModelOptions options;
  options.n_threads = convert_.n_threads;
  options.context = Calibration::kPieceTokens;
  options.context_option = "a calibration's pieces:";
  options.kv = KvType::kF32;
  options.pre_tokenizer = convert_.pre_tokenizer;
  options.state_memory = true;
  const bool is_bf16 = std::ranges::all_of(tensors, [](const ConvertedTensor& tensor) {
    return !is_layer_matrix(tensor) || tensor.from == DType::BF16;
  });
  return Model::load(open_original_source(
                         find_source(convert_.source, {}), options,
                         convert_.no_tokenizer ? FolderTokenizer::kLeftOut : FolderTokenizer::kRead, is_bf16),
                     options, notice);
}

void CalibratedConversion::open_state() {
  std::vector<CalibrationInput> inputs = calibration_->inputs();
  inputs.push_back({"quern", fmt::format("{} ({})", QUERN_VERSION, kBuildCommit)});
  state_.emplace(state_folder(convert_), std::move(inputs));
  const std::string folder = printable(state_->folder(), kPathBytes);
  if (!arguments_.resume) return;
  if (!state_->exists())
    return print_notice("resume: {} is not there: it begins with the first layer", folder);
  state_->load();
  n_resumed_ = state_->n_layers();
  print_notice("resume: {} of {} layers are done ({})", n_resumed_, model_->hparams().n_layers, folder);
}

std::vector<bool> CalibratedConversion::prepare(std::span<const ConvertedTensor> tensors,
                                                GgufMetadata* metadata) {
  if (const CalibrationState earlier(state_folder(convert_), {});
      !arguments_.resume && !convert_.force && !convert_.dry_run && earlier.exists())
    fail(ErrorCode::kUsage,
         "{}: the state of an interrupted calibration: --resume goes on with it, --force begins anew",
         printable(earlier.folder(), kPathBytes));
  std::map<std::string, DType> formats;
  for (const ConvertedTensor& tensor : tensors) {
    formats[tensor.name] = tensor.to;
    // Calibration asks it as well, when the model is loaded.
    if (is_layer_matrix(tensor)) require_calibrated_format(tensor.name, tensor.to);
  }
  model_ = load(tensors);
  require_stages(*model_);  // before anything is said of the vocabulary
  if (!model_->has_tokenizer())
    fail(ErrorCode::kUsage,
         "{}: without a vocabulary the calibration text cannot be read: leave --no-tokenizer out, or convert "
         "without --calibrate",
         printable(convert_.source, kPathBytes));
  Hasher128 hasher;
  std::vector<TokenId> tokens;
  const auto add_text = [&](std::string_view text) {
    hasher.add({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
    const std::vector<TokenId> ids = model_->tokenizer().encode_prompt(text, role_of(false));
    tokens.insert(tokens.end(), ids.begin(), ids.end());
  };
  if (arguments_.texts.empty()) add_text(kCalibrationText);
  for (const std::string& file : arguments_.texts) {
    TextInput input;
    input.file = file;
    add_text(read_text(input, TextRule::kExact));
  }
  CalibrationOptions options;
  options.max_tokens = arguments_.max_tokens.value_or(
      model_->n_params() > kLargeModel ? kTokensOfLargeModels : kTokensOfSmallModels);
  options.strength = arguments_.strength.value_or(options.strength);
  options.damping = arguments_.damping.value_or(options.damping);
  calibration_ = std::make_unique<Calibration>(*model_, tokens, formats, options);
  plan_ = calibration_->plan();
  if (const uint64_t available = available_memory(); plan_.memory_bytes > available)
    fail(ErrorCode::kResource,
         "not enough memory to calibrate: {} needed beside the model, {} available; fewer --calibrate-tokens "
         "need less",
         format_size(plan_.memory_bytes), format_size(available));
  print_notice(
      "calibration: {} tokens ({} held out), about {}, {} of memory beside the model (override: "
      "--calibrate-tokens)",
      plan_.n_tokens, plan_.n_held_out, format_duration(plan_.seconds), format_size(plan_.memory_bytes));
  open_state();
  metadata->set_string(calibration_keys::kMethod, "sequential, asymmetric");
  metadata->set_string(calibration_keys::kTextHash, to_hex(hasher.hash()));
  metadata->set_u32(calibration_keys::kTokens, static_cast<uint32_t>(plan_.n_tokens));
  metadata->set_f32(calibration_keys::kStrength, static_cast<float>(options.strength));
  metadata->set_f32(calibration_keys::kDamping, static_cast<float>(options.damping));
  std::vector<bool> taken;
  for (const ConvertedTensor& tensor : tensors) taken.push_back(is_layer_matrix(tensor));
  return taken;
}

void CalibratedConversion::encode(const WriteRowsFn& write) {
  ProgressBar bar(ProgressUnit::kTokens, kProgressDelay);
  CalibrationCallbacks callbacks;
  callbacks.on_matrix = [&](const CalibratedMatrix& matrix, std::span<const uint8_t> rows) {
    bar.clear();
    write(matrix.name, rows, matrix.relative_rms_error);
  };
  callbacks.on_progress = [&](uint64_t done, uint64_t total) {
    bar.update(done * Calibration::kPieceTokens, total * Calibration::kPieceTokens);
  };
  callbacks.stop = stop_;
  const double start = now_seconds();
  if (n_resumed_ == 0) state_->remove();  // --force
  try {
    report_ = calibration_->run(callbacks, &*state_);
  } catch (...) {
    bar.clear();
    if (state_->n_layers() > 0)
      print_notice("calibration: {} of {} layers are safe in {}: go on with --resume", state_->n_layers(),
                   model_->hparams().n_layers, printable(state_->folder(), kPathBytes));
    throw;
  }
  seconds_ = now_seconds() - start;
}

std::string CalibratedConversion::summary() const {
  size_t n_of[3] = {};
  double error = 0, importance_error = 0;
  for (const CalibratedMatrix& matrix : report_.matrices) {
    ++n_of[static_cast<size_t>(matrix.encoding)];
    error += matrix.error;
    importance_error += matrix.importance_error;
  }
  const double n = std::max<double>(static_cast<double>(report_.matrices.size()), 1);
  return fmt::format(
      "calibrated on {} tokens in {}: {} matrices ({} better by importance alone, {} exact)\n"
      "on {} tokens held out: mean error of what matrices give {:.5f}, by importance alone {:.5f}; "
      "mean KL divergence from the original {:.5f} +/- {:.5f}, same top {:.2f}%\n",
      report_.n_tokens, format_duration(seconds_), report_.matrices.size(),
      n_of[static_cast<size_t>(MatrixEncoding::kImportance)],
      n_of[static_cast<size_t>(MatrixEncoding::kExact)], report_.n_held_out, error / n, importance_error / n,
      report_.kl.value, report_.kl.error, 100 * report_.same_top);
}

void CalibratedConversion::append_json(JsonWriter* json) const {
  json->key("calibration").begin_object();
  json->field("tokens", plan_.n_tokens)
      .field("held_out", plan_.n_held_out)
      .field("memory_bytes", plan_.memory_bytes)
      .field("estimated_seconds", plan_.seconds);
  if (convert_.dry_run) {
    json->end_object();
    return;
  }
  json->field("resumed_layers", n_resumed_)
      .field("seconds", seconds_)
      .field("kl", report_.kl.value)
      .field("kl_error", report_.kl.error)
      .field("same_top", report_.same_top);
  json->key("matrices").begin_array();
  for (const CalibratedMatrix& matrix : report_.matrices)
    json->begin_object()
        .field("name", matrix.name)
        .field("format", block_format(matrix.dtype).name)
        .field("encoding", to_string(matrix.encoding))
        .field("error", matrix.error)
        .field("importance_error", matrix.importance_error)
        .end_object();
  json->end_array().end_object();
}

}  // namespace quern
