#include "quant/gguf_files.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "quant/gguf_split_writer.h"
#include "quant/gguf_writer.h"
#include "tests/quant/gguf_bytes.h"
#include "tests/support/temp_folder.h"

namespace quern {
namespace {

using test::expect_error;
using test::read_file;
using test::TempFolder;

using Change = std::function<void(GgufMetadata*)>;

// A file with vectors of these names, n floats each: their name's last character.
std::string write_file(const TempFolder& folder, const std::string& name, const GgufMetadata& metadata,
                       const std::vector<std::string>& tensors, uint64_t n = 8) {
  std::vector<GgufTensorInfo> infos;
  for (const std::string& tensor : tensors) infos.push_back({tensor, DType::F32, {n}});
  const GgufPlan plan(metadata, infos);
  GgufWriter writer(folder.file(name), plan, metadata, true);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const std::vector<float> values(n, static_cast<float>(tensors[i].back()));
    writer.write_tensor(i, 0, {reinterpret_cast<const uint8_t*>(values.data()), n * sizeof(float)});
  }
  writer.finish();
  return folder.file(name);
}

GgufMetadata split_metadata(uint16_t no, uint16_t count, int32_t n_tensors, const Change& change = {}) {
  GgufMetadata metadata;
  if (no == 0) metadata.set_string("general.architecture", "llama");
  metadata.set_u16("split.no", no);
  metadata.set_u16("split.count", count);
  metadata.set_i32("split.tensors.count", n_tensors);
  if (change) change(&metadata);
  return metadata;
}

// m-00001-of-00003.gguf and so on: no tensor, two, one. `changed`: the part (from 0) that is changed.
std::string write_parts(const TempFolder& folder, int changed = -1, const Change& change = {}) {
  const std::vector<std::vector<std::string>> tensors = {{}, {"a", "b"}, {"c"}};
  for (uint16_t no = 0; no < 3; ++no)
    write_file(folder, gguf_part_path("m", no + 1u, 3),
               split_metadata(no, 3, 3, no == changed ? change : Change()), tensors[no]);
  return folder.file("m-00001-of-00003.gguf");
}

TEST(GgufPartName, IsFiveDigitsOfFive) {
  const auto name = parse_gguf_part_name("x/a-00002-of-00010.gguf");
  ASSERT_TRUE(name);
  EXPECT_EQ(name->stem, "x/a");
  EXPECT_EQ(name->part, 2u);
  EXPECT_EQ(name->count, 10u);
  EXPECT_EQ(gguf_part_path("x/a", 2, 10), "x/a-00002-of-00010.gguf");
  for (const char* other :
       {"a.gguf", "a-00002-of-00010", "a-0002-of-00010.gguf", "a-00000-of-00010.gguf",
        "a-00011-of-00010.gguf", "a-0000x-of-00010.gguf", "00002-of-00010.gguf", ".gguf", ""})
    EXPECT_FALSE(parse_gguf_part_name(other)) << other;
}

TEST(GgufFiles, JoinsThePartsInTheirOrder) {
  const TempFolder folder;
  const std::string first = write_parts(folder);
  std::vector<std::string> notices;
  const auto notice = [&](std::string_view line) { notices.emplace_back(line); };
  for (const bool allow_mmap : {true, false}) {
    const GgufFiles files(first, allow_mmap, notice);
    EXPECT_EQ(files.is_mapped(), allow_mmap);
    ASSERT_EQ(files.files().size(), 3u);
    EXPECT_EQ(files.n_bytes(), gguf_files_bytes(first));
    ASSERT_EQ(files.gguf().tensors().size(), 3u);
    for (size_t i = 0; i < 3; ++i) {
      const TensorView& tensor = files.gguf().tensors()[i];
      EXPECT_EQ(tensor.name, std::string(1, "abc"[i]));
      EXPECT_EQ(*reinterpret_cast<const float*>(tensor.data), "abc"[i]);
      EXPECT_EQ(files.gguf().find_tensor(tensor.name), &tensor);
      EXPECT_EQ(files.file_of(tensor.data), i < 2 ? 1u : 2u);
    }
    EXPECT_EQ(files.gguf().require_string("general.architecture"), "llama");
  }
  EXPECT_TRUE(notices.empty());
}

TEST(GgufFiles, ALaterPartStandsForAll) {
  const TempFolder folder;
  const std::string first = write_parts(folder);
  std::string told;
  const GgufFiles files(folder.file("m-00003-of-00003.gguf"), true,
                        [&](std::string_view line) { told = line; });
  EXPECT_EQ(files.gguf().path(), first);
  EXPECT_EQ(files.gguf().tensors().size(), 3u);
  EXPECT_NE(told.find("part 3 of 3 of a split GGUF, which begins with " + first), told.npos) << told;
}

TEST(GgufFiles, AFileThatSaysNothingOfPartsIsOne) {
  const TempFolder folder;
  GgufMetadata metadata;
  metadata.set_string("general.architecture", "llama");
  EXPECT_EQ(GgufFiles(write_file(folder, "m-00001-of-00003.gguf", metadata, {"a"})).files().size(), 1u);
  // As gguf-split --merge leaves a file.
  metadata.set_u16("split.count", 0);
  EXPECT_EQ(GgufFiles(write_file(folder, "m.gguf", metadata, {"a"})).files().size(), 1u);
}

TEST(GgufFiles, NamesThePartsThatAreNotThere) {
  const TempFolder folder;
  const std::string first = write_parts(folder);
  std::filesystem::remove(folder.file("m-00002-of-00003.gguf"));
  for (const std::string& given : {first, folder.file("m-00003-of-00003.gguf")})
    expect_error(
        ErrorCode::kIo,
        "a split GGUF of 3 parts lacks 1 of them: " + folder.file("m-00002-of-00003.gguf") + "; all parts",
        [&] { GgufFiles files(given); });
  std::filesystem::remove(folder.file("m-00003-of-00003.gguf"));
  expect_error(ErrorCode::kIo, "lacks 2 of them", [&] { GgufFiles files(first); });
}

TEST(GgufFiles, AModelCalledWithoutItsPartsNumbersIsPointedAtItsFirst) {
  const TempFolder folder;
  const std::string first = write_parts(folder);
  expect_error(ErrorCode::kIo,
               "m.gguf: no such file; a model of that name is in several, give the first: " + first,
               [&] { GgufFiles files(folder.file("m.gguf")); });
  expect_error(ErrorCode::kIo, "cannot open", [&] { GgufFiles files(folder.file("n.gguf")); });
}

TEST(GgufFiles, RefusesPartsThatDoNotBelongTogether) {
  struct Case {
    int part;
    Change change;
    std::string message;
  };
  const auto number = [](const char* key, uint16_t value) {
    return [=](GgufMetadata* metadata) { metadata->set_u16(key, value); };
  };
  const std::string two = "m-00002-of-00003.gguf: ", one = "m-00001-of-00003.gguf: ";
  const Case cases[] = {
      {1, number("split.no", 2), two + "split.no: expected an integer from 1 to 1, found u16 2"},
      {1, number("split.count", 4), two + "split.count: expected an integer from 3 to 3, found u16 4"},
      {1, [](GgufMetadata* metadata) { metadata->erase("split.no"); }, two + "key 'split.no' is missing"},
      {1, [](GgufMetadata* metadata) { metadata->erase("split.count"); },
       two + "key 'split.count' is missing"},
      {2, [](GgufMetadata* metadata) { metadata->set_i32("split.tensors.count", 4); },
       "m-00003-of-00003.gguf: split.tensors.count: has another value in the first part"},
      {1, [](GgufMetadata* metadata) { metadata->set_string("general.architecture", "gemma"); },
       two + "general.architecture: has another value in the first part"},
      {1, number("llama.block_count", 3), two + "llama.block_count: is missing in the first part"},
      {0, number("split.no", 7), one + "split.no: expected an integer from 0 to 2, found u16 7"},
      {0, number("split.no", 1),
       one + "is part 2 of 3 of a split GGUF (split.no, split.count), and its name does not "
             "end in -00002-of-00003.gguf"},
      {0, number("split.count", 5), one + "is part 1 of 5 of a split GGUF"},
  };
  for (const Case& c : cases) {
    const TempFolder folder;
    const std::string first = write_parts(folder, c.part, c.change);
    expect_error(ErrorCode::kMalformed, c.message, [&] { GgufFiles files(first); });
  }
  // A change of all alike.
  const TempFolder folder;
  for (uint16_t no = 0; no < 2; ++no)
    write_file(folder, gguf_part_path("m", no + 1u, 2), split_metadata(no, 2, 9), {no == 0 ? "a" : "b"});
  expect_error(ErrorCode::kMalformed,
               "split.tensors.count: expected 2, as many as the parts hold, found i32 9",
               [&] { GgufFiles files(folder.file("m-00001-of-00002.gguf")); });
  for (uint16_t no = 0; no < 2; ++no)
    write_file(folder, gguf_part_path("m", no + 1u, 2), split_metadata(no, 2, 2), {"a"});
  expect_error(ErrorCode::kMalformed,
               "m-00002-of-00002.gguf: duplicate tensor 'a': another part holds it as well",
               [&] { GgufFiles files(folder.file("m-00001-of-00002.gguf")); });
}

TEST(GgufFiles, APartMayRepeatTheMetadataAndHaveItsOwnAlignment) {
  const TempFolder folder;
  const std::string first = write_parts(folder, 1, [](GgufMetadata* metadata) {
    metadata->set_string("general.architecture", "llama");
    metadata->set_u32("general.alignment", 32);
  });
  EXPECT_EQ(GgufFiles(first).gguf().tensors().size(), 3u);
}

TEST(GgufFiles, APartThatIsDamagedIsNamed) {
  const TempFolder folder;
  const std::string first = write_parts(folder), last = folder.file("m-00003-of-00003.gguf");
  std::filesystem::resize_file(last, std::filesystem::file_size(last) - 33);
  expect_error(ErrorCode::kMalformed, last + ": data of tensor 'c' reaches past end of file",
               [&] { GgufFiles files(first); });
}

TEST(GgufFiles, SayWhatIsInAFolderThatWasGivenInstead) {
  const TempFolder folder;
  const std::string path = folder.path().string();
  const auto open = [&] { GgufFiles files(path); };
  expect_error(ErrorCode::kIo, path + ": is a folder, not a GGUF file; give a GGUF file", open);
  folder.write("config.json", "{}");
  expect_error(ErrorCode::kIo, "it holds a checkpoint, which becomes a file first: quern convert " + path,
               open);
  const std::string first = write_parts(folder);
  expect_error(ErrorCode::kIo, "give the model's file: " + first, open);
  folder.write("mmproj-m.gguf", "");
  EXPECT_EQ(gguf_models_in(path), std::vector<std::string>{first});
}

GgufSplitPlan plan_of(const std::vector<GgufTensorInfo>& tensors, uint64_t most) {
  GgufMetadata metadata;
  metadata.set_string("general.architecture", "llama");
  return GgufSplitPlan(metadata, tensors, 32, most);
}

const std::vector<GgufTensorInfo> kTensors = {
    {"a", DType::F32, {100}}, {"b", DType::F32, {200}}, {"c", DType::F32, {300}}, {"d", DType::F32, {1}}};

TEST(GgufSplitPlan, IsOneFileWhereThatIsSmallEnough) {
  const uint64_t whole = plan_of(kTensors, 0).file_bytes();
  const GgufSplitPlan plan = plan_of(kTensors, whole);
  ASSERT_EQ(plan.parts.size(), 1u);
  EXPECT_FALSE(plan.parts[0].metadata.contains("split.count"));
  EXPECT_EQ(plan.paths("m.gguf"), std::vector<std::string>{"m.gguf"});
  EXPECT_GT(plan_of(kTensors, whole - 1).parts.size(), 1u);
}

TEST(GgufSplitPlan, KeepsEveryFileWithinItsSize) {
  for (uint64_t most = 1600; most < 3000; most += 8) {
    const GgufSplitPlan plan = plan_of(kTensors, most);
    size_t n_tensors = 0;
    for (const GgufSplitPlan::Part& part : plan.parts) {
      EXPECT_LE(part.plan.file_size, most);
      EXPECT_EQ(part.first_tensor, n_tensors);
      n_tensors += part.plan.tensors.size();
    }
    EXPECT_EQ(n_tensors, 4u);
    for (size_t i = 0; i < 4; ++i) {
      const GgufSplitPlan::Part& part = plan.parts[plan.part_of(i)];
      EXPECT_EQ(part.plan.tensors.at(i - part.first_tensor).name, kTensors[i].name);
      EXPECT_EQ(plan.tensor_bytes(i), kTensors[i].shape[0] * sizeof(float));
    }
  }
}

TEST(GgufSplitPlan, SaysWhatSizeWouldDo) {
  // Its entry, three keys, padding: 1200 bytes of data need a few more.
  uint64_t needed = 1200;
  while (true) {
    try {
      plan_of(kTensors, needed);
      break;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      const std::string what = error.what();
      ASSERT_NE(what.find("tensor 'c' alone needs a file of "), what.npos) << what;
      const uint64_t said = std::stoull(what.substr(what.find("file of ") + 8));
      ASSERT_GT(said, needed);
      needed = said;
    }
  }
  EXPECT_LT(needed, 1400u);
  expect_error(ErrorCode::kUsage, "the metadata alone needs", [] { plan_of(kTensors, 10); });
}

// Writes kTensors in parts; every value is its tensor's number.
void write_split(const std::string& target, const GgufSplitPlan& plan, bool overwrite) {
  GgufSplitWriter writer(target, plan, overwrite);
  for (size_t i = 0; i < kTensors.size(); ++i) {
    const std::vector<float> values(kTensors[i].shape[0], static_cast<float>(i));
    writer.write_tensor(i, 0,
                        {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)});
  }
  writer.finish();
}

TEST(GgufSplitWriter, WritesWhatGgufFilesReads) {
  const TempFolder folder;
  const GgufSplitPlan plan = plan_of(kTensors, 1600);
  ASSERT_GT(plan.parts.size(), 1u);
  write_split(folder.file("m.gguf"), plan, false);
  EXPECT_EQ(folder.names().size(), plan.parts.size());
  const GgufFiles files(plan.paths(folder.file("m.gguf")).front());
  ASSERT_EQ(files.gguf().tensors().size(), 4u);
  for (size_t i = 0; i < 4; ++i)
    EXPECT_EQ(*reinterpret_cast<const float*>(files.gguf().tensors()[i].data), static_cast<float>(i));
  EXPECT_EQ(files.gguf().find("split.count")->type, GgufType::kU16);
  EXPECT_EQ(files.gguf().find("split.tensors.count")->type, GgufType::kI32);
}

TEST(GgufSplitWriter, NoPartIsThereBeforeAllAre) {
  const TempFolder folder;
  const GgufSplitPlan plan = plan_of(kTensors, 1600);
  { const GgufSplitWriter writer(folder.file("m.gguf"), plan, false); }
  EXPECT_TRUE(folder.names().empty());
  // A set of the same names is kept until the new one is complete.
  write_split(folder.file("m.gguf"), plan, false);
  const std::string first = plan.paths(folder.file("m.gguf")).front(), before = read_file(first);
  expect_error(ErrorCode::kUsage, "exists already", [&] { write_split(folder.file("m.gguf"), plan, false); });
  { const GgufSplitWriter writer(folder.file("m.gguf"), plan, true); }
  EXPECT_EQ(read_file(first), before);
  write_split(folder.file("m.gguf"), plan, true);
  EXPECT_EQ(read_file(first), before);
  EXPECT_EQ(folder.names().size(), plan.parts.size());
}

TEST(GgufSplitWriter, AFailureInTheMiddleLeavesNoSetThatLooksComplete) {
  const TempFolder folder;
  const GgufSplitPlan plan = plan_of(kTensors, 1400);
  const std::vector<std::string> paths = plan.paths(folder.file("m.gguf"));
  ASSERT_GE(paths.size(), 3u);
  GgufSplitWriter writer(folder.file("m.gguf"), plan, false);
  std::filesystem::create_directory(paths[1]);  // the last part gets its name before this one fails to
  expect_error(ErrorCode::kIo, paths[1], [&] { writer.finish(); });
  EXPECT_EQ(folder.names().size(), 1u);
}

}  // namespace
}  // namespace quern
