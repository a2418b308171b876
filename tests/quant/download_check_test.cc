#include "quant/download_check.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

namespace quern {
namespace {

using namespace std::string_view_literals;

std::string hint(std::string_view text) {
  return placeholder_hint({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

TEST(DownloadCheck, NamesWhatStandsInPlaceOfAFile) {
  struct Case {
    std::string_view bytes, part;
  };
  std::string tar = "model.gguf";
  tar.resize(257);
  tar += "ustar  ";
  const std::vector<Case> cases = {
      {"version https://git-lfs.github.com/spec/v1\noid"sv, "git lfs pull"},
      {"<!DOCTYPE html><html>"sv, "HTML"},
      {"\n  <html lang=en>"sv, "HTML"},
      {"\xEF\xBB\xBF\r\n<!doctype html>"sv, "HTML"},
      {"\xEF\xBB\xBF{\"error\":\"gated\"}"sv, "a server's answer"},
      {"Entry not found"sv, "a server's answer"},
      {"Invalid username or password."sv, "a server's answer"},
      {"Access to model x is restricted"sv, "a server's answer"},
      {"{\"error\":\"Invalid credentials\"}"sv, "a server's answer"},
      {"\x02\0\0\0\0\0\0\0{}"sv, "safetensors"},
      {"PK\x03\x04...."sv, "PyTorch"},
      {"\x80\x02}q"sv, "pickle"},
      {"\x1f\x8b\x08\0"sv, "gzip"},
      {"\x28\xb5\x2f\xfd\0"sv, "zstd"},
      {"\xfd"
       "7zXZ\0"sv,
       "xz"},
      {"BZh91AY"sv, "bzip2"},
      {"7z\xbc\xaf\x27\x1c\0"sv, "7z"},
      {"Rar!\x1a\x07\x01\0"sv, "RAR"},
      {tar, "tar"},
      {"\0\0\0\0\0\0\0\0"sv, "begins with zeros"},
  };
  for (const Case& c : cases) {
    const std::string text = hint(c.bytes);
    EXPECT_NE(text.find(c.part), text.npos) << c.bytes << " -> " << text;
    EXPECT_TRUE(text.starts_with("; "));
  }
}

TEST(DownloadCheck, HasNothingToSayAboutOtherBytes) {
  for (const std::string_view bytes : {"GGUF\x03\0\0\0"sv, "{\"model_type\": \"llama\"}"sv, ""sv, "   "sv,
                                       "\xff\0\0\0\0\0\0\0{"sv, "{% if messages %}"sv, "\xEF\xBB\xBF"sv})
    EXPECT_EQ(hint(bytes), "") << bytes;
}

}  // namespace
}  // namespace quern
