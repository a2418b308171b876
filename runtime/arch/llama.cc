// Llama and Mistral: RMSNorm before attention and before a gated feed-forward network, rotary embedding; and
// Mixtral, whose feed-forward networks are experts.
//
// Touvron et al., "LLaMA: Open and Efficient Foundation Language Models", 2023, section 2.2; Jiang et al.,
// "Mistral 7B", 2023, for the sliding window, and "Mixtral of Experts", 2024, section 2.1.
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

// Of a `llama` the usual key is left over from a configuration that nobody applies (llama.cpp and
// transformers ignore it); quern's own says that the model has a window.
uint32_t read_window(HParamReader& keys) {
  const uint64_t window = keys.gguf().uint_or("quern.attention.sliding_window", 0, 0, UINT32_MAX);
  const uint64_t left_over = keys.uint_or("attention.sliding_window", 0, 0, UINT32_MAX);
  if (left_over != 0 && left_over != window)
    keys.note(fmt::format("llama.attention.sliding_window is {} and ignored: {}", left_over,
                          window == 0 ? "a llama has no window (quern.attention.sliding_window would say so)"
                                      : fmt::format("quern.attention.sliding_window is {}", window)));
  return static_cast<uint32_t>(window);
}

class Llama final : public Decoder {
 public:
  explicit Llama(HParamReader& keys) : Decoder(keys, {}) {
    const uint32_t window = read_window(keys);
    for (DecoderLayer& l : layers_) l.attention.shape.window = window;
    keys.ignore({"expert_used_count"});
    if (keys.uint_or("expert_count", 0, 0, kMaxDim) == 0) return;
    for (DecoderLayer& l : layers_) {
      read_expert_counts(keys, &l.experts.n_experts, &l.experts.n_used);
      l.experts.rule.score = RouterScore::kSoftmaxOfChosen;
      l.experts.rule.normalise = true;
    }
  }

  void declare_layer(Declarations& parts, DecoderLayer& l) override {
    Decoder::declare_layer(parts, l);
    if (l.experts.n_experts != 0) l.experts.declare(parts, hparams_.dim, hparams_.hidden_dim);
  }
};

}  // namespace

const Architecture kLlama{"llama", make_network<Llama>};

}  // namespace quern
