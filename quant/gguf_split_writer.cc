#include "quant/gguf_split_writer.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <string_view>
#include <utility>

#include "quant/checked_math.h"
#include "quant/error.h"
#include "quant/gguf_files.h"
#include "quant/output_file.h"

namespace quern {
namespace {

// Bytes that a tensor's entry adds to a header: name, number of dimensions, dimensions, type, offset.
uint64_t entry_bytes(const GgufTensorInfo& tensor) {
  return sizeof(uint64_t) + tensor.name.size() + sizeof(uint32_t) + tensor.shape.size() * sizeof(uint64_t) +
         sizeof(uint32_t) + sizeof(uint64_t);
}

// A header without tensors and padding: magic, version and two counts, then keys with their values.
uint64_t bare_header_bytes(const GgufMetadata& metadata) {
  uint64_t bytes = 24;
  for (const GgufMetadata::Entry& entry : metadata.entries())
    bytes += sizeof(uint64_t) + entry.key.size() + entry.encoded.size();
  return bytes;
}

uint64_t aligned(uint64_t bytes, uint64_t alignment) {
  uint64_t result = 0;
  return checked_align(bytes, alignment, &result) ? result : UINT64_MAX;
}

void set_split_keys(size_t part, size_t n_parts, size_t n_tensors, GgufMetadata* metadata) {
  // The types are llama.cpp's, which reads no others.
  metadata->set_u16(kSplitNoKey, static_cast<uint16_t>(part));
  metadata->set_u16(kSplitCountKey, static_cast<uint16_t>(n_parts));
  metadata->set_i32(kSplitTensorsKey, static_cast<int32_t>(n_tensors));
}

// Of every part but the first.
GgufMetadata bare_metadata(uint64_t alignment) {
  GgufMetadata metadata;
  if (alignment != 32) metadata.set_u32("general.alignment", static_cast<uint32_t>(alignment));
  return metadata;
}

[[noreturn]] void refuse_size(uint64_t most, std::string_view what, uint64_t needed) {
  fail(ErrorCode::kUsage, "--split-size {}: {} alone needs a file of {} bytes; give at least that", most,
       what, needed);
}

}  // namespace

GgufSplitPlan::GgufSplitPlan(const GgufMetadata& metadata, const std::vector<GgufTensorInfo>& tensors,
                             uint64_t alignment, uint64_t most_file_bytes) {
  {
    GgufPlan whole(metadata, tensors, alignment);
    if (most_file_bytes == 0 || whole.file_size <= most_file_bytes) {
      parts.push_back({metadata, std::move(whole), 0});
      return;
    }
  }
  GgufMetadata of_first = metadata, of_later = bare_metadata(alignment);
  set_split_keys(0, 1, tensors.size(), &of_first);
  set_split_keys(0, 1, tensors.size(), &of_later);
  std::vector<std::vector<GgufTensorInfo>> groups(1);
  uint64_t header = bare_header_bytes(of_first), data = 0;
  const uint64_t later_header = bare_header_bytes(of_later);
  if (header > most_file_bytes) refuse_size(most_file_bytes, "the metadata", header);
  const auto fits = [&](uint64_t entry, uint64_t bytes) {
    uint64_t sum = 0;
    return checked_add(aligned(header + entry, alignment), data, &sum) && checked_add(sum, bytes, &sum) &&
           sum <= most_file_bytes;
  };
  for (const GgufTensorInfo& tensor : tensors) {
    const uint64_t bytes = aligned(GgufPlan(of_later, {tensor}, alignment).sizes.front(), alignment);
    const uint64_t entry = entry_bytes(tensor);
    if (!fits(entry, bytes)) {
      groups.emplace_back();
      header = later_header;
      data = 0;
      if (!fits(entry, bytes))
        refuse_size(most_file_bytes, fmt::format("tensor '{}'", printable(tensor.name)),
                    aligned(header + entry, alignment) + bytes);
    }
    groups.back().push_back(tensor);
    header += entry;
    data += bytes;
  }
  if (groups.size() > UINT16_MAX)
    fail(ErrorCode::kUsage, "--split-size {}: makes {} files, at most {} can be numbered", most_file_bytes,
         groups.size(), UINT16_MAX);
  size_t first_tensor = 0;
  for (size_t i = 0; i < groups.size(); ++i) {
    GgufMetadata own = i == 0 ? metadata : bare_metadata(alignment);
    set_split_keys(i, groups.size(), tensors.size(), &own);
    const size_t n = groups[i].size();
    GgufPlan plan(own, std::move(groups[i]), alignment);
    QUERN_CHECK(plan.file_size <= most_file_bytes);
    parts.push_back({std::move(own), std::move(plan), first_tensor});
    first_tensor += n;
  }
}

size_t GgufSplitPlan::part_of(size_t tensor) const {
  // A part without tensors begins where the next one does.
  const auto after = std::partition_point(parts.begin(), parts.end(),
                                          [&](const Part& part) { return part.first_tensor <= tensor; });
  return static_cast<size_t>(after - parts.begin()) - 1;
}

uint64_t GgufSplitPlan::tensor_bytes(size_t tensor) const {
  const Part& part = parts[part_of(tensor)];
  return part.plan.sizes.at(tensor - part.first_tensor);
}

uint64_t GgufSplitPlan::file_bytes() const {
  uint64_t sum = 0;
  for (const Part& part : parts) sum += part.plan.file_size;
  return sum;
}

std::vector<std::string> GgufSplitPlan::paths(const std::string& target) const {
  if (parts.size() == 1) return {target};
  constexpr std::string_view kEnd = ".gguf";
  std::string_view stem = target;
  if (stem.ends_with(kEnd)) stem.remove_suffix(kEnd.size());
  std::vector<std::string> names;
  for (size_t i = 0; i < parts.size(); ++i)
    names.push_back(gguf_part_path(stem, static_cast<uint32_t>(i + 1), static_cast<uint32_t>(parts.size())));
  return names;
}

GgufSplitWriter::GgufSplitWriter(const std::string& target, const GgufSplitPlan& plan, bool overwrite)
    : plan_(plan), paths_(plan.paths(target)), overwrite_(overwrite) {
  for (size_t i = 0; i < paths_.size(); ++i)
    writers_.emplace_back(paths_[i], plan.parts[i].plan, plan.parts[i].metadata, overwrite);
}

void GgufSplitWriter::write_tensor(size_t index, uint64_t offset, std::span<const uint8_t> bytes) {
  const size_t part = plan_.part_of(index);
  writers_[part].write_tensor(index - plan_.parts[part].first_tensor, offset, bytes);
}

void GgufSplitWriter::finish(double* fsync_seconds) {
  const auto start = std::chrono::steady_clock::now();
  if (writers_.size() == 1) {
    writers_.front().finish(fsync_seconds);
    return;
  }
  for (GgufWriter& writer : writers_) writer.flush();
  publish_parts();
  if (fsync_seconds != nullptr)
    *fsync_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void GgufSplitWriter::publish_parts() {
  const std::string& first = paths_.front();
  if (overwrite_ && ::unlink(first.c_str()) != 0 && errno != ENOENT)
    fail_errno(errno, fmt::format("{}: cannot remove the file that is to be replaced",
                                  printable(first, kPathBytes)));
  flush_folder_of(first);
  size_t published = writers_.size();  // the parts from here on are there
  try {
    for (; published > 1; --published) writers_[published - 1].publish();
    flush_folder_of(first);  // the others are there for good before the first one says so
    writers_.front().publish();
  } catch (...) {
    for (size_t i = published; i < paths_.size(); ++i) ::unlink(paths_[i].c_str());
    throw;
  }
  flush_folder_of(first);
}

}  // namespace quern
