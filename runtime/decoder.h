// What almost all architectures are: layers of attention and a feed-forward network (or a mixture of
// experts), each with a norm before it, behind it or both, and added to the residual stream. An architecture
// says in its own file what it has of this, and overrides what it does otherwise.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "runtime/blocks/attention.h"
#include "runtime/blocks/experts.h"
#include "runtime/blocks/feed_forward.h"
#include "runtime/blocks/norm.h"
#include "runtime/hparam_reader.h"
#include "runtime/network.h"

namespace quern {

struct DecoderLayer {
  Norm attention_norm, feed_forward_norm;  // before
  Norm attention_norm_behind, feed_forward_norm_behind;
  AttentionBlock attention;
  FeedForwardBlock feed_forward;
  ExpertsBlock experts;
};

// Where the norms of a layer's two halves stand.
enum class NormPlaces : uint8_t {
  kBefore,  // x += f(norm(x)): attn_norm, ffn_norm
  kBehind,  // x += norm(f(x)): post_attention_norm, post_ffw_norm
  kBoth,    // x += norm(f(norm(x)))
};

struct DecoderTraits {
  NormKind norm = NormKind::kRms;
  NormPlaces norms = NormPlaces::kBefore;
  RopePairs pairs = RopePairs::kNeighbours;
  bool partial_rotation = false;  // rope.dimension_count may be less than a head
  bool rotates = true;
  std::string_view output_norm = "output_norm";
  std::vector<bool>* attends = nullptr;          // read_common_hparams
  std::vector<uint32_t>* hidden_dims = nullptr;  // likewise
  std::vector<uint32_t>* kv_heads = nullptr;     // likewise
};

class Decoder : public Network {
 public:
  void declare(Declarations& parts) override;
  AttentionShape attention(size_t layer) const override { return layers_[layer].attention.shape; }
  std::vector<Rope> ropes(uint64_t context) const override;
  uint64_t usual_context() const override { return rope_.usual_context(); }
  // Attention, then the feed-forward network, which finds its input in h_ where a norm stands before it.
  // Behind the last attention only needed rows go on.
  void layer(size_t index, Pass& pass) const override;

 protected:
  // Reads the sizes and the rotation; layers have all the same attention.
  Decoder(HParamReader& keys, const DecoderTraits& traits);

  // All of one layer; what it leaves out is not there.
  virtual void declare_layer(Declarations& parts, DecoderLayer& layer);

  // The pieces of layer(): x_ -> h_ -> x_.
  void normalise(const Norm& norm, BufferId x, BufferId y, const Pass& pass) const {
    norm.run(pass.device, pass[x], 0, pass.n, pass[y], 0);
  }
  virtual void attend(size_t index, BufferId x, BufferId y, bool add, const Pass& pass) const {
    layers_[index].attention.run(index, pass[x], pass[y], add, pass);
  }
  // Through the experts where the layer has some.
  void feed_forward(size_t index, BufferId x, BufferId y, bool add, const Pass& pass) const;

  // Marks layers by attention.sliding_window_pattern, or where that is absent all but every `period`-th
  // (0: none); the marked ones get the window of attention.sliding_window.
  std::vector<bool> read_window_layers(HParamReader& keys, uint32_t period);

  DecoderTraits traits_;
  RopeSettings rope_;
  std::vector<DecoderLayer> layers_;
};

}  // namespace quern
