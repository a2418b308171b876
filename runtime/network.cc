#include "runtime/network.h"

namespace quern {

void Network::declare_ends(Declarations& parts, std::string_view norm) {
  const HParams& h = hparams_;
  parts.embedding("token_embd.weight", h.vocab_size, h.dim, &token_embd_);
  output_norm_.declare(parts, norm, h.dim);
  parts.output("output.weight", h.vocab_size, h.dim, &output_);
  parts.vector("output.bias", h.vocab_size, &output_bias_, parts.kOptional);
  x_ = parts.buffer("x", h.dim);
  h_ = parts.buffer("h", h.dim);
  logits_ = parts.buffer("logits", h.vocab_size, 0);
}

void Network::embed(std::span<const int32_t> ids, const Pass& pass) const {
  pass.device.embed(*token_embd_, ids, pass[x_]);
  if (embedding_scale_ != 1) pass.device.scale(pass[x_], embedding_scale_, pass.n);
}

void Network::drop_rows(Pass& pass) const {
  if (!pass.needed || pass.needed->size() == pass.n) return;
  std::vector<float> values(hparams_.dim);
  for (size_t i = 0; i < pass.needed->size(); ++i) {
    const size_t row = (*pass.needed)[i];
    if (row == i) continue;
    pass.device.download(pass[x_], row, values);
    pass.device.upload(values, pass[x_], i);
  }
  pass.n = pass.needed->size();
}

void Network::final_norm(size_t x_row, size_t n, size_t row, const Pass& pass) const {
  output_norm_.run(pass.device, pass[x_], x_row, n, pass[h_], row);
}

void Network::output(size_t n, const Pass& pass) const {
  const Device::Product product{&output_matrix(), &pass[logits_], output_bias_.get()};
  pass.device.matmul(pass[h_], n, {&product, 1}, /*add=*/false);
  if (logit_scale_ != 1) pass.device.scale(pass[logits_], logit_scale_, n);
  if (logit_cap_ != 0) pass.device.softcap(pass[logits_], logit_cap_, n);
}

}  // namespace quern
