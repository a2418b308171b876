#include "runtime/session.h"

#include <algorithm>

#include "kernels/cpu_attention.h"
#include "kernels/math_f64.h"
#include "runtime/architecture.h"

namespace quern {
namespace {

// Rows of logits computed together: enough to reuse each row of the output matrix, small beside the cache.
constexpr size_t kLogitRows = 32;

size_t clamp_micro_batch(size_t micro_batch, uint64_t context) {
  return static_cast<size_t>(std::clamp<uint64_t>(micro_batch, 1, context));
}

// f_i = 1 / rho^i with rho^(rotary_dim / 2) = base.
std::vector<double> rope_frequencies(const HParams& h) {
  const unsigned half = h.rotary_dim / 2;
  const double rho = root(h.rope_base, half);
  std::vector<double> frequencies(half);
  for (unsigned i = 0; i < half; ++i) frequencies[i] = 1.0 / powi(rho, i);
  return frequencies;
}

}  // namespace

struct Session::Scratch {
  Scratch(Device& device, const HParams& hparams, size_t n)
      : x(device.allocate(n, hparams.dim)),
        h(device.allocate(n, hparams.dim)),
        q(device.allocate(n, size_t{hparams.n_heads} * hparams.head_dim)),
        k(device.allocate(n, size_t{hparams.n_kv_heads} * hparams.head_dim)),
        v(device.allocate(n, size_t{hparams.n_kv_heads} * hparams.head_dim)),
        attention_out(device.allocate(n, size_t{hparams.n_heads} * hparams.head_dim)),
        gate(device.allocate(n, hparams.hidden_dim)),
        up(device.allocate(n, hparams.hidden_dim)),
        logits(device.allocate(std::min(n, kLogitRows), hparams.vocab_size)) {}

  std::unique_ptr<DeviceBuffer> x, h, q, k, v, attention_out, gate, up, logits;
};

KvShape Session::kv_shape(const HParams& h, uint64_t context, KvType kv) {
  return {h.n_layers, h.n_kv_heads, h.head_dim, static_cast<size_t>(context), kv};
}

uint64_t Session::scratch_memory(const HParams& h, uint64_t context, size_t micro_batch, int n_threads) {
  const uint64_t n = clamp_micro_batch(micro_batch, context);
  const uint64_t q_dim = uint64_t{h.n_heads} * h.head_dim, kv_dim = uint64_t{h.n_kv_heads} * h.head_dim;
  const uint64_t per_token = 2 * uint64_t{h.dim} + 2 * q_dim + 2 * kv_dim + 2 * uint64_t{h.hidden_dim};
  // The device keeps the widest input twice more, quantized: 11 / 8 bytes of a value, and up to 17 / 8 packed
  // in tiles.
  const uint64_t widest = std::max({uint64_t{h.dim}, q_dim, uint64_t{h.hidden_dim}});
  const uint64_t attention =
      CpuAttention::scratch_bytes({h.n_heads, h.n_kv_heads, h.head_dim, h.rotary_dim, h.window},
                                  static_cast<size_t>(context), static_cast<size_t>(n), n_threads);
  const uint64_t logits = std::min<uint64_t>(n, kLogitRows) * h.vocab_size;
  return (n * per_token + logits) * sizeof(float) + attention + n * widest * 7 / 2;
}

Session::Session(const Model& model, size_t micro_batch)
    : model_(model),
      micro_batch_(clamp_micro_batch(micro_batch, model.context())),
      rope_frequencies_(rope_frequencies(model.hparams())),
      cos_sin_(micro_batch_ * model.hparams().rotary_dim),
      cache_(model.device().allocate_kv(kv_shape(model.hparams(), model.context(), model.kv_type()))),
      scratch_(std::make_unique<Scratch>(model.device(), model.hparams(), micro_batch_)),
      logits_(model.hparams().vocab_size) {}

Session::~Session() = default;

void Session::fill_rope_table(size_t position, size_t n) {
  float* out = cos_sin_.data();
  for (size_t t = 0; t < n; ++t)
    for (const double frequency : rope_frequencies_) {
      double sine, cosine;
      sincos(static_cast<double>(position + t) * frequency, &sine, &cosine);
      *out++ = static_cast<float>(cosine);
      *out++ = static_cast<float>(sine);
    }
}

bool Session::forward(std::span<const int32_t> tokens, const StopFn& stop) {
  Scratch& s = *scratch_;
  const size_t n = tokens.size();
  fill_rope_table(position(), n);
  model_.device().embed(*model_.token_embd, tokens, *s.x);
  LayerContext context{model_.device(),
                       model_.hparams(),
                       position(),
                       n,
                       std::span<const float>(cos_sin_).first(n * model_.hparams().rotary_dim),
                       *cache_,
                       *s.x,
                       *s.h,
                       *s.q,
                       *s.k,
                       *s.v,
                       *s.attention_out,
                       *s.gate,
                       *s.up};
  for (size_t i = 0; i < model_.layers.size(); ++i) {
    if (stop && stop()) return false;
    model_.architecture().layer(model_.layers[i], i, context);
  }
  return true;
}

void Session::emit_logits(size_t row_begin, size_t n, size_t first, const LogitsFn& on_logits) {
  Scratch& s = *scratch_;
  Device& device = model_.device();
  for (size_t row = row_begin; row < n; row += kLogitRows) {
    const size_t count = std::min(kLogitRows, n - row);
    device.rms_norm(*s.x, row, count, *model_.output_norm, model_.hparams().rms_eps, *s.h);
    const Device::Product product{&model_.output_matrix(), s.logits.get()};
    device.matmul(*s.h, count, {&product, 1}, /*add=*/false);
    for (size_t i = 0; i < count; ++i) {
      device.read(*s.logits, i, logits_);
      on_logits(first + row + i, logits_);
    }
  }
}

bool Session::eval(std::span<const int32_t> tokens, size_t n_logits, const LogitsFn& on_logits,
                   const StopFn& stop) {
  if (tokens.size() > model_.context() - position())
    fail(ErrorCode::kResource,
         "{} tokens do not fit: {} of the context's {} positions are taken; a larger --ctx is needed",
         tokens.size(), position(), model_.context());
  for (const int32_t id : tokens)
    if (id < 0 || static_cast<uint32_t>(id) >= model_.hparams().vocab_size)
      fail(ErrorCode::kUsage, "token id {}: expected 0 to {}", id, model_.hparams().vocab_size - 1);

  const size_t first_logit = tokens.size() - std::min(n_logits, tokens.size());
  for (size_t begin = 0; begin < tokens.size(); begin += micro_batch_) {
    const auto batch = tokens.subspan(begin, std::min(micro_batch_, tokens.size() - begin));
    bool finished = false;
    model_.device().run_pass([&] {
      finished = forward(batch, stop);
      if (!finished) return;
      tokens_.insert(tokens_.end(), batch.begin(), batch.end());
      const size_t end = begin + batch.size();
      if (first_logit < end)
        emit_logits(std::max(first_logit, begin) - begin, batch.size(), begin, on_logits);
    });
    if (!finished) return false;
  }
  return true;
}

std::span<const float> Session::eval(std::span<const int32_t> tokens) {
  eval(tokens, 1, [](size_t, std::span<const float>) {});
  return logits_;
}

void Session::truncate(size_t n) {
  QUERN_CHECK(n <= position());
  tokens_.resize(n);
}

size_t Session::reuse_prefix(std::span<const int32_t> tokens) {
  const size_t limit = std::min(tokens_.size(), tokens.empty() ? 0 : tokens.size() - 1);
  size_t n = 0;
  while (n < limit && tokens_[n] == tokens[n]) ++n;
  truncate(n);
  return n;
}

}  // namespace quern
