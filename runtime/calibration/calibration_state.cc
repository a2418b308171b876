#include "runtime/calibration/calibration_state.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "quant/error.h"
#include "quant/gguf_encode.h"
#include "quant/output_file.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

// The last digit is the version of this layout.
constexpr std::string_view kStreamsMagic = "QUERNCS1", kLayerMagic = "QUERNCL1";

template <class T>
std::span<const uint8_t> bytes_of(std::span<const T> values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size_bytes()};
}

void append_magic(std::vector<uint8_t>* out, std::string_view magic) {
  append_bytes(out, bytes_of(std::span(magic)));
}

// Returns the checksum that it appended.
Hash128 write_checked(const std::string& path, std::span<const std::span<const uint8_t>> parts) {
  Hasher128 hasher;
  uint64_t size = 0;
  for (const std::span<const uint8_t> part : parts) {
    hasher.add(part);
    size += part.size();
  }
  const Hash128 checksum = hasher.hash();
  OutputFile file(path, size + sizeof checksum, /*overwrite=*/true);
  uint64_t at = 0;
  for (const std::span<const uint8_t> part : parts) {
    file.write_at(at, part);
    at += part.size();
  }
  file.write_at(at, bytes_of(std::span(&checksum, 1)));
  file.commit();
  return checksum;
}

// The bytes of a file, front to back, its checksum verified. A checksum keeps nobody from writing nonsense:
// every length is checked all the same.
class CheckedReader {
 public:
  CheckedReader(const MappedFile& file, std::string_view magic) : path_(file.path()), left_(file.bytes()) {
    if (left_.size() < magic.size() + sizeof checksum_)
      CalibrationState::refuse_damaged(path_, "it is too short");
    const std::span<const uint8_t> checked = left_.first(left_.size() - sizeof checksum_);
    std::memcpy(&checksum_, left_.data() + checked.size(), sizeof checksum_);
    left_ = checked;
    if (!(Hasher128().add(checked).hash() == checksum_))
      CalibrationState::refuse_damaged(path_, "its checksum is another");
    if (!std::ranges::equal(bytes(magic.size()), bytes_of(std::span(magic))))
      CalibrationState::refuse_damaged(path_, "it is of another layout");
  }

  const Hash128& checksum() const { return checksum_; }
  std::span<const uint8_t> rest() const { return left_; }

  std::span<const uint8_t> bytes(uint64_t n) {
    if (n > left_.size()) CalibrationState::refuse_damaged(path_, "something is longer than the file");
    const std::span<const uint8_t> found = left_.first(n);
    left_ = left_.subspan(n);
    return found;
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, bytes(sizeof value).data(), sizeof value);
    return value;
  }
  std::string string() {
    const std::span<const uint8_t> found = bytes(number<uint64_t>());
    return {found.begin(), found.end()};
  }

 private:
  const std::string path_;
  std::span<const uint8_t> left_;
  Hash128 checksum_;
};

}  // namespace

void CalibrationState::refuse_damaged(const std::string& path, std::string_view what) {
  fail(ErrorCode::kIntegrity,
       "{}: the state of a calibration is damaged: {}; begin anew, with --force and without --resume",
       printable(path, kPathBytes), what);
}

CalibrationState::CalibrationState(std::string folder, std::vector<CalibrationInput> inputs)
    : folder_(std::move(folder)), inputs_(std::move(inputs)) {}

std::string CalibrationState::path_of_layer(size_t layer) const {
  return fmt::format("{}/layer-{}.codes", folder_, layer);
}

bool CalibrationState::exists() const {
  std::error_code ignored;
  return fs::exists(path_of_streams(), ignored);
}

void CalibrationState::load() {
  MappedFile file(path_of_streams());
  CheckedReader reader(file, kStreamsMagic);
  std::vector<CalibrationInput> found;
  for (auto n_inputs = reader.number<uint64_t>(); n_inputs > 0; --n_inputs) {
    std::string name = reader.string();
    found.push_back({std::move(name), reader.string()});
  }
  std::string differences;
  for (const CalibrationInput& input : inputs_) {
    const auto before = std::ranges::find(found, input.name, &CalibrationInput::name);
    const std::string value = before == found.end() ? "not known" : printable(before->value);
    if (value != input.value)
      differences +=
          fmt::format("{}{} was {}, is {}", differences.empty() ? "" : "; ", input.name, value, input.value);
  }
  if (!differences.empty())
    fail(
        ErrorCode::kMalformed,
        "{}: the state of another calibration: {}; give --resume what it was begun with, or begin anew, with "
        "--force and without --resume",
        printable(folder_, kPathBytes), differences);
  checksums_.clear();
  for (auto n = reader.number<uint64_t>(); n > 0; --n) checksums_.push_back(reader.number<Hash128>());
  stream_bytes_ = reader.rest();
  streams_ = std::move(file);
}

void CalibrationState::read_streams(std::span<const std::span<float>> out) {
  QUERN_CHECK(streams_.has_value());
  for (const std::span<float> piece : out) {
    if (piece.size_bytes() > stream_bytes_.size())
      refuse_damaged(path_of_streams(), "the streams are shorter than the text");
    std::memcpy(piece.data(), stream_bytes_.data(), piece.size_bytes());
    stream_bytes_ = stream_bytes_.subspan(piece.size_bytes());
  }
  if (!stream_bytes_.empty()) refuse_damaged(path_of_streams(), "the streams are longer than the text");
  streams_.reset();
}

void CalibrationState::read_layer(size_t layer, const OnCalibratedMatrix& on_matrix) const {
  const std::string path = path_of_layer(layer);
  const MappedFile file(path);
  CheckedReader reader(file, kLayerMagic);
  if (!(reader.checksum() == checksums_.at(layer))) refuse_damaged(path, "it is of another calibration");
  const auto n_matrices = reader.number<uint64_t>();
  for (uint64_t i = 0; i < n_matrices; ++i) {
    CalibratedMatrix matrix;
    matrix.name = reader.string();
    matrix.dtype = reader.number<DType>();
    matrix.encoding = reader.number<MatrixEncoding>();
    if (matrix.encoding > MatrixEncoding::kExact) refuse_damaged(path, "a matrix has an unknown encoding");
    matrix.error = reader.number<double>();
    matrix.importance_error = reader.number<double>();
    matrix.relative_rms_error = reader.number<double>();
    on_matrix(matrix, reader.bytes(reader.number<uint64_t>()));
  }
}

void CalibrationState::store_layer(std::span<const CalibratedMatrix> matrices,
                                   std::span<const std::span<const uint8_t>> rows,
                                   std::span<const std::span<const float>> streams) {
  QUERN_CHECK(matrices.size() == rows.size());
  if (::mkdir(folder_.c_str(), 0777) == 0)
    flush_folder_of(folder_);
  else if (errno != EEXIST)
    fail_errno(errno, fmt::format("{}: cannot make the folder", printable(folder_, kPathBytes)));

  std::vector<std::vector<uint8_t>> heads(matrices.size() + 1);
  append_magic(&heads[0], kLayerMagic);
  append_number<uint64_t>(&heads[0], matrices.size());
  std::vector<std::span<const uint8_t>> parts = {heads[0]};
  for (size_t i = 0; i < matrices.size(); ++i) {
    std::vector<uint8_t>& head = heads[i + 1];
    append_string(&head, matrices[i].name);
    append_number(&head, matrices[i].dtype);
    append_number(&head, matrices[i].encoding);
    append_number(&head, matrices[i].error);
    append_number(&head, matrices[i].importance_error);
    append_number(&head, matrices[i].relative_rms_error);
    append_number<uint64_t>(&head, rows[i].size());
    parts.insert(parts.end(), {head, rows[i]});
  }
  std::vector<Hash128> checksums = checksums_;
  checksums.push_back(write_checked(path_of_layer(n_layers()), parts));

  std::vector<uint8_t> head;
  append_magic(&head, kStreamsMagic);
  append_number<uint64_t>(&head, inputs_.size());
  for (const CalibrationInput& input : inputs_) {
    append_string(&head, input.name);
    append_string(&head, input.value);
  }
  append_number<uint64_t>(&head, checksums.size());
  append_bytes(&head, bytes_of(std::span<const Hash128>(checksums)));
  parts = {head};
  for (const std::span<const float> stream : streams) parts.push_back(bytes_of(stream));
  write_checked(path_of_streams(), parts);
  checksums_ = std::move(checksums);
}

void CalibrationState::remove() noexcept {
  std::error_code ignored;
  // First: without it the others are no state.
  fs::remove(path_of_streams(), ignored);
  fs::directory_iterator it(folder_, ignored);
  for (const fs::directory_iterator end; !ignored && it != end; it.increment(ignored)) {
    const std::string name = it->path().filename().string();
    const bool is_ours =
        (name.starts_with("layer-") && (name.ends_with(".codes") || name.ends_with(".tmp"))) ||
        (name.starts_with("streams.") && name.ends_with(".tmp"));
    std::error_code of_file;
    if (is_ours) fs::remove(it->path(), of_file);
  }
  fs::remove(folder_, ignored);
  checksums_.clear();
}

}  // namespace quern
