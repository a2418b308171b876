#include "tests/cli/quern_cli.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <random>
#include <stdexcept>

namespace quern::test {
namespace {

struct TensorPlan {
  std::string name;
  std::vector<uint64_t> shape;
};

uint64_t n_elements(const TensorPlan& tensor) {
  uint64_t n = 1;
  for (const uint64_t dim : tensor.shape) n *= dim;
  return n;
}

}  // namespace

ProcessOptions with_test_environment(ProcessOptions options) {
  options.environment.emplace_back("ASAN_OPTIONS=exitcode=99:allocator_may_return_null=1");
  options.environment.emplace_back("UBSAN_OPTIONS=exitcode=99:print_stacktrace=1");
  // Tests run side by side: a thread that waits leaves the core to another test.
  options.environment.emplace_back("OMP_WAIT_POLICY=passive");
  options.timeout_seconds *= kSlowdown;
  return options;
}

std::vector<std::string> quern_command(const std::vector<std::string>& arguments) {
  std::vector<std::string> command = {quern_binary()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

ProcessResult quern(const std::vector<std::string>& arguments, const ProcessOptions& options) {
  return run_process(quern_command(arguments), with_test_environment(options));
}

ProcessResult quern_after(const std::string& shell_lines, const std::vector<std::string>& arguments) {
  std::vector<std::string> command = {"/bin/sh", "-c", shell_lines + "\nexec \"$@\"", "sh", quern_binary()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return run_process(command, with_test_environment({}));
}

bool has_memory_to_probe() {
  const ProcessResult result = quern({"doctor", "--no-probe", "--json"});
  EXPECT_EQ(result.exit_code, 0) << describe(result);
  return Json::parse(result.out)["available_bytes"] > 3.0 * (1 << 30);
}

std::string converted(const TempFolder& folder, std::string_view checkpoint, std::string_view type,
                      const std::vector<std::string>& more_options) {
  std::string output = folder.file(fmt::format("{}-{}.gguf", checkpoint, type));
  std::vector<std::string> arguments = {"convert", test_data(checkpoint), "-o", output,
                                        "--type",  std::string(type)};
  arguments.insert(arguments.end(), more_options.begin(), more_options.end());
  const ProcessResult result = quern(arguments);
  EXPECT_EQ(result.exit_code, 0) << describe(result);
  return output;
}

Json golden_model(std::string_view name) {
  const Json models = Json::parse(read_file(test_data("golden/logits.json")));
  for (const Json& model : models) {
    if (model["model"] == name) return model;
  }
  throw std::runtime_error("golden/logits.json has no model " + std::string(name));
}

std::string write_big_checkpoint(const TempFolder& folder, size_t megabytes) {
  constexpr uint64_t kDim = 1024, kHidden = 2816, kHeads = 8, kVocab = 256;
  constexpr uint64_t kLayerBytes = 2 * (4 * kDim * kDim + 3 * kDim * kHidden);
  const uint64_t n_layers = 1 + megabytes * 1000 * 1000 / kLayerBytes;

  std::vector<TensorPlan> tensors = {{"model.embed_tokens.weight", {kVocab, kDim}}};
  for (uint64_t layer = 0; layer < n_layers; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    tensors.push_back({prefix + "input_layernorm.weight", {kDim}});
    for (const char* projection : {"q", "k", "v", "o"}) {
      tensors.push_back({fmt::format("{}self_attn.{}_proj.weight", prefix, projection), {kDim, kDim}});
    }
    tensors.push_back({prefix + "post_attention_layernorm.weight", {kDim}});
    tensors.push_back({prefix + "mlp.gate_proj.weight", {kHidden, kDim}});
    tensors.push_back({prefix + "mlp.up_proj.weight", {kHidden, kDim}});
    tensors.push_back({prefix + "mlp.down_proj.weight", {kDim, kHidden}});
  }
  tensors.push_back({"model.norm.weight", {kDim}});
  tensors.push_back({"lm_head.weight", {kVocab, kDim}});

  Json header;
  uint64_t offset = 0;
  for (const TensorPlan& tensor : tensors) {
    const uint64_t end = offset + 2 * n_elements(tensor);
    header.add(tensor.name, Json::object({{"dtype", "BF16"},
                                          {"shape", tensor.shape},
                                          {"data_offsets", Json::array({offset, end})}}));
    offset = end;
  }

  const std::filesystem::path path = folder.path() / "big";
  std::filesystem::create_directory(path);
  const Json config = Json::object({{"architectures", Json::array({"LlamaForCausalLM"})},
                                    {"model_type", "llama"},
                                    {"hidden_act", "silu"},
                                    {"hidden_size", kDim},
                                    {"intermediate_size", kHidden},
                                    {"num_hidden_layers", n_layers},
                                    {"num_attention_heads", kHeads},
                                    {"num_key_value_heads", kHeads},
                                    {"vocab_size", kVocab},
                                    {"max_position_embeddings", 512},
                                    {"rms_norm_eps", 1e-5},
                                    {"rope_theta", 10000.0},
                                    {"bos_token_id", 1},
                                    {"eos_token_id", 2},
                                    {"torch_dtype", "bfloat16"},
                                    {"tie_word_embeddings", false}});
  std::ofstream(path / "config.json") << config;

  // Random signs and mantissas below 2^-6: finite, and no two blocks alike within the buffer.
  std::vector<uint16_t> buffer(1 << 20);
  std::mt19937 random(1);
  for (uint16_t& bits : buffer) bits = static_cast<uint16_t>((random() & 0x81ff) | 0x3b00);
  std::ofstream out(path / "model.safetensors", std::ios::binary);
  const std::string text = header.dump();
  const uint64_t text_bytes = text.size();
  out.write(reinterpret_cast<const char*>(&text_bytes), sizeof text_bytes);
  out << text;
  for (uint64_t left = offset; left > 0;) {
    const uint64_t n = std::min<uint64_t>(left, buffer.size() * sizeof buffer[0]);
    out.write(reinterpret_cast<const char*>(buffer.data()), static_cast<std::streamsize>(n));
    left -= n;
  }
  out.close();
  if (!out) throw std::runtime_error("cannot write " + path.string());
  return path.string();
}

std::string join_ids(const std::vector<int>& ids) { return fmt::format("{}", fmt::join(ids, ",")); }

size_t count_lines_with_prefix(std::string_view text, std::string_view prefix) {
  size_t count = 0;
  while (!text.empty()) {
    count += text.starts_with(prefix);
    const size_t end = text.find('\n');
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return count;
}

std::string describe(const ProcessResult& result) {
  return fmt::format("exit {}, signal {}{}, {:.2f} s, {} MiB\nstdout: {}\nstderr: {}\n", result.exit_code,
                     result.signal, result.timed_out ? ", timed out" : "", result.seconds,
                     result.peak_rss_bytes >> 20, result.out.substr(0, 2000), result.err.substr(0, 4000));
}

}  // namespace quern::test
