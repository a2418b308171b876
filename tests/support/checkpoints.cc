#include "tests/support/checkpoints.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <span>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "convert/safetensors.h"
#include "tests/support/temp_folder.h"

namespace quern::test {
namespace {

namespace fs = std::filesystem;

void write_file(const fs::path& path, std::string_view content) {
  std::ofstream file(path, std::ios::binary);
  file << content;
  if (!file.flush()) throw std::runtime_error("cannot write " + path.string());
}

// Throws when `from` does not occur: a fixture that changed must not go unnoticed.
void replace(std::string* text, std::string_view from, std::string_view to) {
  const size_t at = text->find(from);
  if (at == std::string::npos) throw std::runtime_error("not found: " + std::string(from));
  text->replace(at, from.size(), to);
}

// Written out here and not taken from convert/, which these twins test.
std::string mistral_name(std::string name) {
  constexpr std::pair<std::string_view, std::string_view> kParts[] = {
      {"model.layers.", "layers."},
      {"model.embed_tokens.", "tok_embeddings."},
      {"model.norm.", "norm."},
      {"lm_head.", "output."},
      {"input_layernorm.", "attention_norm."},
      {"post_attention_layernorm.", "ffn_norm."},
      {"self_attn.q_proj.", "attention.wq."},
      {"self_attn.k_proj.", "attention.wk."},
      {"self_attn.v_proj.", "attention.wv."},
      {"self_attn.o_proj.", "attention.wo."},
      {"mlp.gate_proj.", "feed_forward.w1."},
      {"mlp.down_proj.", "feed_forward.w2."},
      {"mlp.up_proj.", "feed_forward.w3."},
  };
  for (const auto& [from, to] : kParts) {
    if (name.find(from) != std::string::npos) replace(&name, from, to);
  }
  return name;
}

// formats.md 2.3: row h*hd + 2*i + j comes from row h*hd + j*(hd/2) + i.
std::string interleave_rows(const TestTensor& tensor, size_t head_dim) {
  const size_t row_bytes = tensor.bytes.size() / tensor.shape[0], half = head_dim / 2;
  std::string out;
  for (size_t head = 0; head < tensor.shape[0]; head += head_dim) {
    for (size_t i = 0; i < half; ++i) {
      for (size_t j = 0; j < 2; ++j) out += tensor.bytes.substr((head + j * half + i) * row_bytes, row_bytes);
    }
  }
  return out;
}

void copy_tokenizer(const fs::path& source, const fs::path& folder) {
  fs::copy_file(source / "tokenizer.model", folder / "tokenizer.model", fs::copy_options::overwrite_existing);
}

}  // namespace

std::string safetensors_file(const std::vector<TestTensor>& tensors) {
  std::string header = "{", data;
  for (const TestTensor& tensor : tensors) {
    header += fmt::format(R"({}"{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                          header.size() > 1 ? "," : "", tensor.name, tensor.dtype,
                          fmt::join(tensor.shape, ","), data.size(), data.size() + tensor.bytes.size());
    data += tensor.bytes;
  }
  header += "}";
  std::string length;
  for (int shift = 0; shift < 64; shift += 8) {
    length += static_cast<char>(static_cast<uint64_t>(header.size()) >> shift & 0xFF);
  }
  return length + header + data;
}

std::vector<TestTensor> read_safetensors_file(const std::string& path) {
  const std::string bytes = read_file(path);
  const SafetensorsHeader header =
      read_safetensors_header({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, path);
  std::vector<TestTensor> tensors;
  for (const SafetensorsTensor& tensor : header.tensors) {
    tensors.push_back({tensor.name, std::string(tensor.type->name), tensor.shape,
                       bytes.substr(tensor.begin, tensor.end - tensor.begin)});
  }
  return tensors;
}

void write_small_checkpoint(const SmallCheckpoint& shape, const std::string& folder) {
  fs::create_directories(folder);
  std::mt19937 random(1);
  std::vector<TestTensor> tensors;
  const auto add = [&](std::string name, Shape tensor_shape) {
    size_t n = 1;
    for (const auto dim : tensor_shape) n *= dim;
    std::string bytes;
    for (size_t i = 0; i < n; ++i) {
      // Norms are 1; the rest of either sign, from 2^-4 up to 1.
      const auto bits =
          tensor_shape.size() == 1 ? 0x3f80u : (random() & 0x807fu) | (0x3d80u + random() % 4 * 0x80u);
      bytes += static_cast<char>(bits & 0xff);
      bytes += static_cast<char>(bits >> 8 & 0xff);
    }
    tensors.push_back({std::move(name), "BF16", std::move(tensor_shape), std::move(bytes)});
  };
  const size_t q_dim = shape.n_heads * shape.head_dim, kv_dim = shape.n_kv_heads * shape.head_dim;
  const std::string layer = "model.layers.0.";
  add("model.embed_tokens.weight", {shape.vocab_size, shape.dim});
  add(layer + "input_layernorm.weight", {shape.dim});
  add(layer + "self_attn.q_proj.weight", {q_dim, shape.dim});
  add(layer + "self_attn.k_proj.weight", {kv_dim, shape.dim});
  add(layer + "self_attn.v_proj.weight", {kv_dim, shape.dim});
  add(layer + "self_attn.o_proj.weight", {shape.dim, q_dim});
  add(layer + "post_attention_layernorm.weight", {shape.dim});
  add(layer + "mlp.gate_proj.weight", {shape.hidden_dim, shape.dim});
  add(layer + "mlp.up_proj.weight", {shape.hidden_dim, shape.dim});
  add(layer + "mlp.down_proj.weight", {shape.dim, shape.hidden_dim});
  add("model.norm.weight", {shape.dim});
  add("lm_head.weight", {shape.vocab_size, shape.dim});
  write_file(fs::path(folder) / "model.safetensors", safetensors_file(tensors));
  write_file(fs::path(folder) / "config.json",
             fmt::format(R"({{"architectures": ["MistralForCausalLM"], "model_type": "mistral",)"
                         R"( "hidden_act": "silu", "rms_norm_eps": 1e-05, "rope_theta": 10000.0,)"
                         R"( "tie_word_embeddings": false, "hidden_size": {}, "intermediate_size": {},)"
                         R"( "num_hidden_layers": 1, "num_attention_heads": {}, "num_key_value_heads": {},)"
                         R"( "head_dim": {}, "vocab_size": {}, "max_position_embeddings": 32768,)"
                         R"( "bos_token_id": 1, "eos_token_id": 2, "sliding_window": {}}})",
                         shape.dim, shape.hidden_dim, shape.n_heads, shape.n_kv_heads, shape.head_dim,
                         shape.vocab_size, shape.window == 0 ? "null" : std::to_string(shape.window)));
}

void write_tied_twin(const std::string& source, const std::string& folder) {
  fs::create_directories(folder);
  std::vector<TestTensor> tensors = read_safetensors_file(source + "/model.safetensors");
  std::erase_if(tensors, [](const TestTensor& tensor) { return tensor.name == "lm_head.weight"; });
  write_file(fs::path(folder) / "model.safetensors", safetensors_file(tensors));
  std::string config = read_file(source + "/config.json");
  replace(&config, R"("tie_word_embeddings": false)", R"("tie_word_embeddings": true)");
  write_file(fs::path(folder) / "config.json", config);
  copy_tokenizer(source, folder);
}

void write_mistral_layout_twin(const std::string& source, const std::string& folder) {
  constexpr size_t kHeadDim = 64;  // tiny-mistral's
  fs::create_directories(folder);
  std::vector<TestTensor> tensors = read_safetensors_file(source + "/model.safetensors");
  for (TestTensor& tensor : tensors) {
    tensor.name = mistral_name(tensor.name);
    if (tensor.name.ends_with(".wq.weight") || tensor.name.ends_with(".wk.weight")) {
      tensor.bytes = interleave_rows(tensor, kHeadDim);
    }
  }
  write_file(fs::path(folder) / "consolidated.safetensors", safetensors_file(tensors));
  // No rope_theta: without a sliding window it means 1e6, as config.json has it.
  write_file(fs::path(folder) / "params.json",
             R"({"dim": 256, "n_layers": 3, "head_dim": 64, "hidden_dim": 512, "n_heads": 4,)"
             R"( "n_kv_heads": 2, "norm_eps": 1e-05, "vocab_size": 1024})");
  copy_tokenizer(source, folder);
}

}  // namespace quern::test
