// LFM2: short convolutions between two gates in most layers, attention with normalised heads in the others.
//
// Liquid AI, "LFM2 Technical Report", 2025, section 2.
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class Lfm2 final : public Decoder {
 public:
  explicit Lfm2(HParamReader& keys) : Lfm2(keys, std::vector<bool>()) {}

  AttentionShape attention(size_t layer) const override {
    return attends_[layer] ? Decoder::attention(layer) : AttentionShape{};
  }
  uint64_t state_floats(size_t layer) const override {
    return attends_[layer] ? 0 : uint64_t{kernel_ - 1} * hparams_.dim;
  }

  void declare_layer(Declarations& parts, DecoderLayer& l) override {
    const uint64_t dim = hparams_.dim;
    l.attention_norm.declare(parts, "attn_norm", dim);
    if (attends_[parts.layer()]) {
      l.attention.declare(parts, dim);
      l.attention.declare_head_norms(parts, hparams_.norm_eps);
    } else {
      Convolution& c = convolutions_[parts.layer()];
      parts.stacked("shortconv.in_proj.weight", {{dim, &c.w_before}, {dim, &c.w_behind}, {dim, &c.w_in}},
                    dim);
      parts.vectors("shortconv.conv.weight", dim, kernel_, &c.taps);
      parts.matrix("shortconv.out_proj.weight", dim, dim, &c.w_out);
      parts.stacked_vectors("shortconv.in_proj.bias",
                            {{dim, &c.b_before}, {dim, &c.b_behind}, {dim, &c.b_in}}, parts.kOptional);
      parts.vector("shortconv.conv.bias", dim, &c.bias, parts.kOptional);
      parts.vector("shortconv.out_proj.bias", dim, &c.b_out, parts.kOptional);
      before_ = parts.buffer("gate_before", dim);
      behind_ = parts.buffer("gate_behind", dim);
      in_ = parts.buffer("convolution_in", dim);
    }
    l.feed_forward_norm.declare(parts, "ffn_norm", dim);
    l.feed_forward.declare(parts, dim, hparams_.hidden_dim);
  }

  void layer(size_t index, Pass& pass) const override {
    const DecoderLayer& l = layers_[index];
    normalise(l.attention_norm, x_, h_, pass);
    if (attends_[index])
      attend(index, h_, x_, /*add=*/true, pass);
    else
      convolve(index, pass);
    normalise(l.feed_forward_norm, x_, h_, pass);
    feed_forward(index, h_, x_, /*add=*/true, pass);
  }

 private:
  struct Convolution {
    Matrix w_before, w_behind, w_in;         // [dim, dim]: the two gates and the input
    Vector taps, bias;                       // [dim * kernel]; [dim]
    Matrix w_out;                            // [dim, dim]
    Vector b_before, b_behind, b_in, b_out;  // [dim], where the file has them
  };

  Lfm2(HParamReader& keys, std::vector<bool> attends)
      : Decoder(keys, {.pairs = RopePairs::kHalves, .output_norm = "token_embd_norm", .attends = &attends}),
        attends_(std::move(attends)),
        kernel_(keys.require_uint("shortconv.l_cache", 1, 64)),
        convolutions_(hparams_.n_layers) {}

  // x += W (c * convolution(b * h W_in)), b and c the gates.
  void convolve(size_t index, const Pass& pass) const {
    const Convolution& c = convolutions_[index];
    const Device::Product inputs[] = {{c.w_before.get(), &pass[before_], c.b_before.get()},
                                      {c.w_behind.get(), &pass[behind_], c.b_behind.get()},
                                      {c.w_in.get(), &pass[in_], c.b_in.get()}};
    pass.device.matmul(pass[h_], pass.n, inputs, /*add=*/false);
    pass.device.multiply(pass[in_], pass[before_], pass.n);
    pass.device.convolve(index, pass.sequences, *c.taps, c.bias.get(), kernel_, 0, pass[in_], pass[h_]);
    pass.device.multiply(pass[h_], pass[behind_], pass.n);
    const Device::Product out{c.w_out.get(), &pass[x_], c.b_out.get()};
    pass.device.matmul(pass[h_], pass.n, {&out, 1}, /*add=*/true);
  }

  std::vector<bool> attends_;  // of each layer
  uint32_t kernel_;
  std::vector<Convolution> convolutions_;
  BufferId before_ = 0, behind_ = 0, in_ = 0;
};

}  // namespace

const Architecture kLfm2{"lfm2", make_network<Lfm2>};

}  // namespace quern
