// Any decoder with experts, beside one that every token takes, through a gate of its own. A layer whose file
// has a feed-forward network has neither.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/blocks/shared_expert.h"
#include "runtime/decoder.h"

namespace quern {

template <class Base>
class WithSharedExpert : public Base {
 public:
  void declare_layer(Declarations& parts, DecoderLayer& l) override {
    if (parts.holds("ffn_gate.weight")) l.experts.n_experts = 0;
    Base::declare_layer(parts, l);
    if (l.experts.n_experts == 0) return;
    l.experts.declare(parts, this->hparams_.dim, expert_dim_);
    shared_[parts.layer()].declare(parts, this->hparams_.dim, shared_dim_);
  }

  void layer(size_t index, Pass& pass) const override {
    Base::layer(index, pass);  // leaves the input of the feed-forward network in h
    if (this->layers_[index].experts.n_experts != 0 && pass.n != 0)
      shared_[index].add(pass[this->h_], pass[this->x_], pass);
  }

 protected:
  // normalise: whether the weights of the chosen experts are, where the file does not say. base: what Base's
  // constructor takes behind the keys.
  template <class... Arguments>
  WithSharedExpert(HParamReader& keys, bool normalise, const Arguments&... base)
      : Base(keys, base...),
        expert_dim_(keys.require_uint("expert_feed_forward_length", 1, kMaxDim)),
        shared_dim_(keys.require_uint("expert_shared_feed_forward_length", 1, kMaxDim)),
        shared_(this->hparams_.n_layers) {
    for (DecoderLayer& l : this->layers_) {
      read_expert_counts(keys, &l.experts.n_experts, &l.experts.n_used);
      l.experts.rule.normalise = keys.bool_or("expert_weights_norm", normalise);
    }
  }

 private:
  uint64_t expert_dim_, shared_dim_;
  std::vector<GatedSharedExpert> shared_;
};

}  // namespace quern
