// GPT-2: learned positions, LayerNorm, biases everywhere, a feed-forward network of GELU.
//
// Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, section 2.3.
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class Gpt2 final : public Decoder {
 public:
  explicit Gpt2(HParamReader& keys) : Decoder(keys, {.norm = NormKind::kLayer, .rotates = false}) {
    for (DecoderLayer& l : layers_) l.feed_forward.activation = Activation::kGelu;
  }

  void declare(Declarations& parts) override {
    parts.embedding("position_embd.weight", hparams_.context_length, hparams_.dim, &positions_);
    Decoder::declare(parts);
  }

  // There is nothing to add beyond the last learned position.
  uint64_t most_context() const override { return hparams_.context_length; }

  void embed(std::span<const int32_t> ids, const Pass& pass) const override {
    Decoder::embed(ids, pass);
    std::vector<int32_t> positions;
    for (const SequenceRows& rows : pass.sequences)
      for (size_t t = 0; t < rows.n; ++t) positions.push_back(static_cast<int32_t>(rows.position + t));
    pass.device.embed(*positions_, positions, pass[h_]);
    pass.device.add(pass[x_], pass[h_], 1, pass.n);
  }

 private:
  Matrix positions_;  // [context_length, dim]
};

}  // namespace

const Architecture kGpt2{"gpt2", make_network<Gpt2>};

}  // namespace quern
