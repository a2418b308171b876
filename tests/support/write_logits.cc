// quern_write_logits MODEL.gguf IDS.json CONTEXT OUT: the logits of every id of a list (or of an object's
// `ids`), evaluated with a cache of F32 in a context of CONTEXT positions, as [n, vocab_size] floats in OUT.
// For scripts that compare all of them with another program's.
#include <cstdio>
#include <exception>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/support/models.h"

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: quern_write_logits MODEL.gguf IDS.json CONTEXT OUT\n");
    return 1;
  }
  try {
    std::ifstream file(argv[2]);
    nlohmann::json list = nlohmann::json::parse(file);
    if (list.is_object()) list = list.at("ids");
    const auto ids = list.get<std::vector<int32_t>>();
    quern::ModelOptions options;
    options.kv = quern::KvType::kF32;
    options.context = std::stoull(argv[3]);
    options.n_threads = 1;
    const auto model = quern::test::open_model(argv[1], options);
    const std::vector<float> logits = quern::test::all_logits(*model, ids, ids.size(), 512);
    std::ofstream out(argv[4], std::ios::binary);
    out.write(reinterpret_cast<const char*>(logits.data()),
              static_cast<std::streamsize>(logits.size() * sizeof(float)));
    if (!out.flush()) throw std::runtime_error(std::string(argv[4]) + ": cannot be written");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
}
