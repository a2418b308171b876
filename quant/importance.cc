#include "quant/importance.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <utility>

#include "quant/error.h"
#include "quant/gguf_reader.h"
#include "quant/gguf_writer.h"
#include "quant/mapped_file.h"

namespace quern {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr std::string_view kSums = ".in_sum2", kCounts = ".counts";

std::vector<float> floats_of(const TensorView& tensor) {
  std::vector<float> values(tensor.n_elements());
  std::memcpy(values.data(), tensor.data, values.size() * sizeof(float));
  return values;
}

// Little-endian numbers and strings one after the other; every length is checked before it is used.
class LegacyReader {
 public:
  LegacyReader(std::span<const uint8_t> bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  bool at_end() const { return place_ == bytes_.size(); }

  int32_t number(const char* what, int32_t min) {
    int32_t value = 0;
    std::memcpy(&value, take(sizeof value, what), sizeof value);
    if (value < min)
      fail(ErrorCode::kMalformed, "{}: offset {}: {}: expected at least {}, found {}", path_,
           place_ - sizeof value, what, min, value);
    return value;
  }

  std::string text(const char* what, int32_t min) {
    const auto n = static_cast<size_t>(number(what, min));
    return {reinterpret_cast<const char*>(take(n, what)), n};
  }

  std::vector<float> floats(size_t n, const char* what) {
    const uint8_t* data = take(n * sizeof(float), what);
    std::vector<float> values(n);
    std::memcpy(values.data(), data, n * sizeof(float));
    return values;
  }

 private:
  const uint8_t* take(size_t n, const char* what) {
    if (n > bytes_.size() - place_)
      fail(ErrorCode::kMalformed, "{}: offset {}: {}: {} bytes expected, {} left; is this an imatrix file?",
           path_, place_, what, n, bytes_.size() - place_);
    return bytes_.data() + std::exchange(place_, place_ + n);
  }

  std::span<const uint8_t> bytes_;
  const std::string& path_;
  size_t place_ = 0;
};

}  // namespace

void write_importance(const std::string& path, std::vector<ImportanceSums> entries,
                      const ImportanceOrigin& origin, bool overwrite) {
  std::ranges::sort(entries, {}, &ImportanceSums::tensor);
  GgufMetadata metadata;
  metadata.set_string("general.type", "imatrix");
  metadata.set_strings("imatrix.datasets", std::vector<std::string>{origin.dataset});
  metadata.set_u32("imatrix.chunk_count", origin.n_chunks);
  metadata.set_u32("imatrix.chunk_size", origin.chunk_tokens);
  std::vector<GgufTensorInfo> infos;
  std::vector<std::vector<float>> values;
  for (const ImportanceSums& entry : entries) {
    const uint64_t n_matrices = entry.counts.size();
    infos.push_back({entry.tensor + std::string(kSums), DType::F32, {n_matrices, entry.columns}});
    values.emplace_back(entry.sums.begin(), entry.sums.end());
    infos.push_back({entry.tensor + std::string(kCounts), DType::F32, {n_matrices, 1}});
    values.emplace_back(entry.counts.begin(), entry.counts.end());
  }
  const GgufPlan plan(metadata, std::move(infos));
  GgufWriter writer(path, plan, metadata, overwrite);
  for (size_t i = 0; i < values.size(); ++i)
    writer.write_tensor(
        i, 0, {reinterpret_cast<const uint8_t*>(values[i].data()), values[i].size() * sizeof(float)});
  writer.finish();
}

ImportanceFile::ImportanceFile(const std::string& path) : path_(path) {
  const MappedFile file(path);
  const std::span<const uint8_t> bytes = file.bytes();
  if (bytes.size() >= kMagic.size() && std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) == 0)
    read_gguf(bytes);
  else
    read_legacy(bytes);
  if (entries_.empty()) fail(ErrorCode::kMalformed, "{}: holds no tensor's importance", path_);
}

void ImportanceFile::read_gguf(std::span<const uint8_t> bytes) {
  const GgufReader gguf(bytes, path_);
  n_chunks_ = static_cast<uint32_t>(gguf.uint_or("imatrix.chunk_count", 0, 0, UINT32_MAX));
  if (const GgufValue* datasets = gguf.find("imatrix.datasets")) {
    const auto names = datasets->as_strings();
    if (names && !names->empty()) dataset_ = std::string(names->front());
  }
  for (const TensorView& sums : gguf.tensors()) {
    if (!sums.name.ends_with(kSums)) continue;
    const std::string name = sums.name.substr(0, sums.name.size() - kSums.size());
    const TensorView* counts = gguf.find_tensor(name + std::string(kCounts));
    if (counts == nullptr) gguf.refuse(fmt::format("tensor '{}' has sums and no counts", printable(name)));
    for (const TensorView* tensor : {&sums, counts})
      if (tensor->dtype != DType::F32 || tensor->layout != TensorLayout::kRows)
        gguf.refuse(fmt::format("tensor '{}': expected F32, found {}", printable(tensor->name),
                                block_format(tensor->dtype).name));
    add(name, floats_of(sums), floats_of(*counts));
  }
  if (entries_.empty())
    gguf.refuse("holds no sums (tensors whose names end in .in_sum2): is this a model and no imatrix?");
}

void ImportanceFile::read_legacy(std::span<const uint8_t> bytes) {
  LegacyReader reader(bytes, path_);
  const int32_t n_entries = reader.number("number of tensors", 1);
  for (int32_t i = 0; i < n_entries; ++i) {
    const std::string name = reader.text("length of a tensor's name", 1);
    const int32_t n_calls = reader.number("calls", 0);
    const int32_t n_values = reader.number("number of sums", 1);
    // What was never counted stands as its mean already.
    const float calls = n_calls > 0 ? static_cast<float>(n_calls) : 1.0f;
    add(name, reader.floats(static_cast<size_t>(n_values), "sums"), {calls});
  }
  if (reader.at_end()) return;
  n_chunks_ = static_cast<uint32_t>(reader.number("number of chunks", 0));
  if (!reader.at_end()) dataset_ = reader.text("length of the data set's name", 0);
}

void ImportanceFile::add(const std::string& name, std::vector<float> sums, const std::vector<float>& counts) {
  const auto refuse = [&](const std::string& what) {
    fail(ErrorCode::kMalformed, "{}: tensor '{}': {}", path_, printable(name), what);
  };
  if (sums.empty() || counts.empty() || sums.size() % counts.size() != 0)
    refuse(fmt::format("{} sums do not belong to {} counts", sums.size(), counts.size()));
  Importance importance;
  importance.n_matrices = counts.size();
  const size_t columns = sums.size() / counts.size();
  for (size_t m = 0; m < counts.size(); ++m) {
    const std::span<float> mine(&sums[m * columns], columns);
    // Counts are whole; the reference rounds them.
    const float count = std::round(counts[m]);
    if (!std::isfinite(counts[m]) || count < 0) refuse(fmt::format("count {} is {}", m, counts[m]));
    for (size_t i = 0; i < columns; ++i)
      if (!std::isfinite(mine[i]) || mine[i] < 0)
        refuse(fmt::format("the sum of column {} (matrix {}) is {}; expected a finite number of at least 0",
                           i, m, mine[i]));
    if (count == 0) {
      importance.never_chosen.push_back(m);
      std::ranges::fill(mine, 1.0f);
      continue;
    }
    if (std::ranges::all_of(mine, [](float sum) { return sum == 0; }))
      refuse(fmt::format("all sums of matrix {} are 0; measure again, on a text that reaches it", m));
    for (float& sum : mine) sum /= count;
  }
  importance.weights = std::move(sums);
  if (!entries_.try_emplace(name, std::move(importance)).second) refuse("stands there twice");
}

const Importance* ImportanceFile::find(std::string_view tensor) const {
  const auto found = entries_.find(tensor);
  return found == entries_.end() ? nullptr : &found->second;
}

const Importance* ImportanceFile::find(std::string_view tensor, const Shape& shape) const {
  const Importance* importance = find(tensor);
  if (importance == nullptr) return nullptr;
  uint64_t n_matrices = 1;
  for (size_t d = 0; d + 2 < shape.size(); ++d) n_matrices *= shape[d];
  // The older format does not say how many matrices its sums are of.
  if (importance->weights.size() != n_matrices * shape.back() ||
      (importance->n_matrices != n_matrices && importance->n_matrices != 1))
    fail(ErrorCode::kMalformed,
         "{}: tensor '{}': expected {} matrices of {} columns, found {} of {}; is it the importance of "
         "another "
         "model?",
         path_, printable(tensor), n_matrices, shape.back(), importance->n_matrices,
         importance->weights.size() / importance->n_matrices);
  return importance;
}

}  // namespace quern
