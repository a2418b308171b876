// Blocks on the disk: restored by another cache they equal what is computed, and what is not as it should be
// counts as absent.
#include "runtime/engine/prefix_files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "runtime/engine/prefix_cache.h"
#include "runtime/generate.h"
#include "tests/support/models.h"
#include "tests/support/paths.h"
#include "tests/support/temp_folder.h"

namespace quern {
namespace {

namespace fs = std::filesystem;
constexpr size_t kBlock = Sequence::kBlock;

std::unique_ptr<Model> open(const std::string& name, uint64_t context, const std::string& isa = "",
                            int n_threads = 2, KvType kv = KvType::kF16) {
  const auto& bundled = test::bundled_models();
  const bool is_bundled = std::find(bundled.begin(), bundled.end(), name) != bundled.end();
  const std::string path =
      is_bundled ? test::converted(name, "q8_0")
                 : test::converted_folder(test::unpacked_data("architectures") + "/" + name, "q8_0");
  ModelOptions options;
  options.context = context;
  options.isa = isa;
  options.n_threads = n_threads;
  options.kv = kv;
  options.state_bytes = 64 << 20;
  return test::open_model(path, options);
}

std::vector<float> logits_of(Engine& engine, Sequence& sequence, std::span<const int32_t> ids) {
  std::vector<float> all;
  const Work work{&sequence, ids, ids.size(),
                  [&](size_t, std::span<const float> z) { all.insert(all.end(), z.begin(), z.end()); }};
  EXPECT_TRUE(engine.run({&work, 1}));
  return all;
}

class BlocksOnDisk : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models, BlocksOnDisk,
                         testing::Values("tiny-mistral", "random-window", "lfm2", "qwen35", "gemma3"),
                         [](const auto& model) {
                           std::string name = model.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// Written with one instruction set and number of threads, restored with another by another model.
TEST_P(BlocksOnDisk, EqualWhatIsComputedAcrossProcesses) {
  const test::TempFolder temp;
  const PrefixCacheOptions options{.folder = temp.file("cache"), .disk_bytes = 1 << 30};
  // A sanitizer makes the plain set too slow.
  const auto writer = open(GetParam(), 1600, "", 2),
             reader = open(GetParam(), 1600, QUERN_SANITIZED ? "" : "scalar", 1);
  const std::vector<int32_t> ids = test::random_ids(*writer, 1100, 1);
  {
    PrefixCache cache(*writer, options);
    Engine engine(*writer);
    Sequence sequence(*writer);
    PrefixCache::Chain chain;
    for (size_t begin = 0; begin < ids.size(); begin += 220) {
      logits_of(engine, sequence, std::span(ids).subspan(begin, 220));
      cache.keep(sequence, "owner", &chain);
    }
    EXPECT_EQ(cache.stats().blocks, 0u) << "no memory was asked for";
    EXPECT_GT(cache.stats().file_bytes, 2 * sequence.block_bytes());
  }
  PrefixCache cache(*reader, options);
  EXPECT_GT(cache.stats().file_bytes, 0u);
  Engine engine(*reader);
  Sequence restored(*reader), fresh(*reader), foreign(*reader);
  cache.restore(foreign, "another", ids);
  EXPECT_EQ(foreign.position(), 0u);
  cache.restore(restored, "owner", ids);
  ASSERT_EQ(restored.position(), 2 * kBlock);
  const std::vector<float> all = logits_of(engine, fresh, ids);
  const std::vector<float> rest = logits_of(engine, restored, std::span(ids).subspan(2 * kBlock));
  const size_t n_before = 2 * kBlock * reader->hparams().vocab_size;
  ASSERT_EQ(rest.size(), all.size() - n_before);
  EXPECT_EQ(std::memcmp(rest.data(), all.data() + n_before, rest.size() * sizeof(float)), 0);
}

class FilesOfBlocks : public testing::Test {
 protected:
  const test::TempFolder temp_;
  const std::string folder_ = temp_.file("cache");
  std::vector<std::string> notices_;

  PrefixFiles files(uint64_t disk_bytes = 1 << 20, const Hash128& model = {1, 2}) {
    return {folder_, disk_bytes, model, [this](std::string_view line) { notices_.emplace_back(line); }};
  }
  static std::vector<TokenId> ids(TokenId first) { return {first, 2, 3, 4}; }
  static std::vector<uint8_t> block(uint8_t value) { return std::vector<uint8_t>(1000, value); }
  static bool has(PrefixFiles& files, const Hash128& key, TokenId first, uint8_t value) {
    const auto found = files.load(key, ids(first), 1000);
    return found && std::equal(found->data(), found->data() + 1000, block(value).begin());
  }
  std::string only_file() const {
    std::string path;
    for (const auto& entry : fs::directory_iterator(folder_))
      if (entry.path().extension() == ".block") path = entry.path().string();
    return path;
  }
};

TEST_F(FilesOfBlocks, AreFoundByALaterProcess) {
  const Hash128 key{5, 6};
  HashSecret secret;
  {
    PrefixFiles written = files();
    secret = written.secret();
    EXPECT_FALSE(has(written, key, 1, 7));
    written.store(key, ids(1), block(7));
    EXPECT_TRUE(has(written, key, 1, 7));
  }
  PrefixFiles later = files();
  EXPECT_EQ(later.secret(), secret);
  EXPECT_TRUE(later.contains(key));
  EXPECT_TRUE(has(later, key, 1, 7));
  EXPECT_TRUE(notices_.empty());
}

TEST_F(FilesOfBlocks, AreTheUsersAlone) {
  PrefixFiles written = files();
  written.store({5, 6}, ids(1), block(7));
  EXPECT_EQ(fs::status(folder_).permissions(), fs::perms::owner_all);
  constexpr auto kOwn = fs::perms::owner_read | fs::perms::owner_write;
  EXPECT_EQ(fs::status(only_file()).permissions(), kOwn);
  EXPECT_EQ(fs::status(folder_ + "/secret").permissions(), kOwn);
  // One that others could have changed is not read.
  fs::permissions(only_file(), fs::perms::group_read, fs::perm_options::add);
  EXPECT_FALSE(has(written, {5, 6}, 1, 7));
  ASSERT_EQ(notices_.size(), 1u);
  EXPECT_NE(notices_[0].find("of this user's alone; it counts as absent"), std::string::npos) << notices_[0];
}

TEST_F(FilesOfBlocks, RefuseAFolderThatOthersMayEnterOrThatIsNone) {
  const auto message = [&] {
    try {
      files();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      return std::string(error.what());
    }
    return std::string();
  };
  fs::create_directory(folder_);
  ASSERT_EQ(::chmod(folder_.c_str(), 0750), 0);
  EXPECT_NE(message().find("has mode 0750"), std::string::npos) << message();
  ASSERT_EQ(::chmod(folder_.c_str(), 0700), 0);
  EXPECT_EQ(message(), "");
  fs::rename(folder_, folder_ + "-real");
  fs::create_directory_symlink(folder_ + "-real", folder_);
  EXPECT_NE(message().find("is no folder"), std::string::npos) << message();
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give a folder away";
  fs::remove(folder_);
  fs::rename(folder_ + "-real", folder_);
  ASSERT_EQ(::chown(folder_.c_str(), 12345, 12345), 0);
  EXPECT_NE(message().find("belongs to user 12345"), std::string::npos) << message();
}

TEST_F(FilesOfBlocks, RefuseASecretOfAnotherLength) {
  files();
  fs::resize_file(folder_ + "/secret", 10);
  try {
    files();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kMalformed) << error.what();
  }
}

// Any byte of a file may be damaged, and it may end anywhere.
TEST_F(FilesOfBlocks, CountAsAbsentWhenDamagedWithOneLine) {
  const Hash128 key{5, 6};
  std::string bytes;
  {
    PrefixFiles written = files();
    written.store(key, ids(1), block(7));
    std::ifstream file(only_file(), std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(file), {});
  }
  ASSERT_EQ(bytes.size(), 80u + 16 + 1000);
  const std::string path = only_file();
  const auto is_refused = [&](const std::string& damaged) {
    {
      std::ofstream file(path, std::ios::binary);
      file << damaged;
    }
    fs::permissions(path, fs::perms::owner_read | fs::perms::owner_write);
    notices_.clear();
    PrefixFiles later = files();
    const bool absent = !later.load(key, ids(1), 1000).has_value();
    EXPECT_FALSE(later.contains(key));
    EXPECT_FALSE(fs::exists(path)) << "the next one would find it again";
    return absent && notices_.size() == 1;
  };
  for (size_t i = 0; i < bytes.size(); i += i < 100 ? 1 : 37) {
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    EXPECT_TRUE(is_refused(damaged)) << "byte " << i;
  }
  for (const size_t size : {size_t{0}, size_t{79}, size_t{80}, size_t{500}, bytes.size() - 1})
    EXPECT_TRUE(is_refused(bytes.substr(0, size))) << size;
  EXPECT_TRUE(is_refused(bytes + "x"));
  // Whole, but of another version, model or text.
  std::string version = bytes;
  version[8] = 2;
  EXPECT_TRUE(is_refused(version));
  EXPECT_NE(notices_[0].find("of version 2.1, expected 1.1"), std::string::npos) << notices_[0];
  files().store(key, ids(1), block(7));
  PrefixFiles other_model = files(1 << 20, {9, 9});
  EXPECT_FALSE(has(other_model, key, 1, 7));
  files().store(key, ids(1), block(7));
  PrefixFiles later = files();
  EXPECT_FALSE(later.load(key, ids(8), 1000).has_value());
  files().store(key, ids(1), block(7));
  EXPECT_FALSE(files().load(key, ids(1), 999).has_value());
}

TEST_F(FilesOfBlocks, GoWhenOthersNeedTheRoom) {
  constexpr uint64_t kFile = 80 + 16 + 1000;
  {
    PrefixFiles written = files(3 * kFile + 10);
    for (uint64_t i = 0; i < 3; ++i) written.store({i, 0}, ids(1), block(7));
    EXPECT_TRUE(has(written, {0, 0}, 1, 7));  // used again
    written.store({3, 0}, ids(1), block(7));
    EXPECT_EQ(written.bytes(), 3 * kFile);
    EXPECT_FALSE(written.contains({1, 0}));
  }
  EXPECT_EQ(files(3 * kFile).bytes(), 3 * kFile);
  PrefixFiles less = files(2 * kFile);
  EXPECT_EQ(less.bytes(), 2 * kFile);
  EXPECT_TRUE(less.contains({0, 0}) && less.contains({3, 0}) && !less.contains({2, 0}))
      << "the order is that of their use";
  less.store({4, 0}, ids(1), std::vector<uint8_t>(4000));
  EXPECT_FALSE(less.contains({4, 0}));
  EXPECT_EQ(less.bytes(), 2 * kFile);
}

TEST_F(FilesOfBlocks, MayGoWhileAnotherProcessKnowsOfThem) {
  PrefixFiles a = files();
  a.store({1, 0}, ids(1), block(7));
  fs::remove(only_file());
  EXPECT_FALSE(has(a, {1, 0}, 1, 7));
  EXPECT_FALSE(a.contains({1, 0}));
  EXPECT_TRUE(notices_.empty());
  EXPECT_EQ(a.bytes(), 0u);
}

TEST(ModelHash, TellsModelsApart) {
  const auto a = open("tiny-mistral", 64), b = open("stories260k", 64), again = open("tiny-mistral", 600);
  EXPECT_EQ(model_hash(*a), model_hash(*again));
  EXPECT_NE(model_hash(*a), model_hash(*b));
  // The same file with another weight somewhere.
  const test::TempFolder folder;
  std::string bytes = test::read_file(a->gguf().path());
  bytes[bytes.size() - 100] = static_cast<char>(bytes[bytes.size() - 100] ^ 1);
  EXPECT_NE(model_hash(*test::open_model(folder.write("changed.gguf", bytes), {})), model_hash(*a));
  ModelOptions unmapped;
  unmapped.allow_mmap = false;
  EXPECT_THROW(model_hash(*test::open_model(a->gguf().path(), unmapped)), Error);
}

// run and chat: a later process reads the rest of a prompt only, and says the same.
TEST_P(BlocksOnDisk, ServeALaterCompletion) {
  const test::TempFolder temp;
  const PrefixCacheOptions folder{.folder = temp.file("cache"), .disk_bytes = 1 << 30};
  const auto model = open(GetParam(), 2048);
  std::vector<int32_t> prompt = test::random_ids(*model, 1000, 1);
  CompletionOptions options;
  options.max_tokens = 60;
  options.ignore_eos = true;
  const auto complete = [&](PrefixCache* cache) {
    Session session(*model);
    Speculation speculation;
    return generate(session, prompt, options, {}, {}, {}, {.speculation = &speculation, .cache = cache});
  };
  for (size_t turn = 0; turn < 3; ++turn) {
    const GenerateResult expected = complete(nullptr);
    EXPECT_EQ(expected.prompt_tokens, prompt.size());
    for (size_t again = 0; again < 2; ++again) {
      PrefixCache cache(*model, folder);
      const GenerateResult found = complete(&cache);
      EXPECT_EQ(found.tokens, expected.tokens);
      const size_t known = turn + again == 0 ? 0 : (prompt.size() - 1) / kBlock;  // of the answer, too
      EXPECT_EQ(found.prompt_tokens, prompt.size() - known * kBlock) << turn << again;
    }
    prompt.insert(prompt.end(), expected.tokens.begin(), expected.tokens.end());
    const std::vector<int32_t> more = test::random_ids(*model, 200, static_cast<uint32_t>(turn));
    prompt.insert(prompt.end(), more.begin(), more.end());
  }
}

}  // namespace
}  // namespace quern
