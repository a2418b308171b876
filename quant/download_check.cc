#include "quant/download_check.h"

#include <algorithm>
#include <cstdint>
#include <string_view>

namespace quern {

namespace {

using namespace std::string_view_literals;

// Files of other kinds by their first bytes.
struct Stranger {
  std::string_view magic, what;
};
constexpr Stranger kStrangers[] = {
    {"PK\x03\x04"sv,
     "; this is a zip archive, perhaps PyTorch weights (.bin, .pth), which are not read: get the "
     "model as safetensors or GGUF"},
    {"\x80\x02"sv,
     "; this is a Python pickle (PyTorch weights), which is not read: get the model as safetensors "
     "or GGUF"},
    {"\x1f\x8b"sv, "; this is a gzip archive: unpack it first"},
    {"\x28\xb5\x2f\xfd"sv, "; this is a zstd archive: unpack it first"},
    {"\xfd"
     "7zXZ"sv,
     "; this is an xz archive: unpack it first"},
    {"BZh"sv, "; this is a bzip2 archive: unpack it first"},
    {"7z\xbc\xaf\x27\x1c"sv, "; this is a 7z archive: unpack it first"},
    {"Rar!\x1a\x07"sv, "; this is a RAR archive: unpack it first"},
    {"\x89HDF"sv, "; this is an HDF5 file, which is not read: get the model as safetensors or GGUF"},
};

// What servers answer instead of a file that is not there or not free, in lower case.
constexpr std::string_view kErrorTexts[] = {"entry not found",
                                            "invalid username or password",
                                            "access to model",
                                            "repository not found",
                                            "not found",
                                            "unauthorized",
                                            "forbidden",
                                            "{\"error\"",
                                            "<error>",
                                            "404:",
                                            "401:",
                                            "403:"};

// A length, and a JSON object of it.
bool looks_like_safetensors(std::span<const uint8_t> bytes) {
  constexpr size_t kLengthBytes = 8;
  if (bytes.size() <= kLengthBytes || bytes[kLengthBytes] != '{') return false;
  uint64_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) length |= uint64_t{bytes[i]} << (8 * i);
  return length <= bytes.size() - kLengthBytes;
}

// A tar archive names itself behind the first file's name, owner, size ... (POSIX, "ustar Interchange
// Format").
bool looks_like_tar(std::string_view bytes) {
  constexpr size_t kMagic = 257;
  return bytes.size() > kMagic && bytes.substr(kMagic).starts_with("ustar");
}

}  // namespace

std::string placeholder_hint(std::span<const uint8_t> bytes) {
  std::string start(bytes.begin(), bytes.begin() + std::min<size_t>(bytes.size(), 64));
  std::transform(start.begin(), start.end(), start.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  if (start.starts_with("version https://git-lfs")) {
    return "; this is a git-lfs pointer, not the file itself: run 'git lfs pull' in its folder";
  }
  if (looks_like_safetensors(bytes)) {
    return "; this is a safetensors file: give `quern convert` the folder that it is in, with config.json "
           "and the "
           "tokenizer";
  }
  const std::string_view whole(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (const Stranger& stranger : kStrangers)
    if (whole.starts_with(stranger.magic)) return std::string(stranger.what);
  if (looks_like_tar(whole)) return "; this is a tar archive: unpack it first";
  if (!start.empty() && std::all_of(start.begin(), start.end(), [](char c) { return c == '\0'; })) {
    return "; it begins with zeros, as an unfinished download does: download it again";
  }
  const size_t text = start.find_first_not_of(" \t\r\n", start.starts_with("\xef\xbb\xbf") ? 3 : 0);
  if (text == start.npos) return "";
  const std::string_view body = std::string_view(start).substr(text);
  if (body.starts_with("<!doctype") || body.starts_with("<html") || body.starts_with("<?xml")) {
    return "; this is an HTML page, perhaps an error page saved under the file's name: download it again";
  }
  for (const std::string_view answer : kErrorTexts) {
    if (body.starts_with(answer)) {
      return "; this is a server's answer saved under the file's name (not found, or no access): log in or "
             "accept "
             "the model's terms, and download it again";
    }
  }
  return "";
}

}  // namespace quern
