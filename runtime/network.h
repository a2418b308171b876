// A model's mathematics: its hyper-parameters, its weights, and a forward pass of one micro-batch, layer by
// layer. One class for each architecture (arch/), made of blocks that families share (blocks/).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/device.h"
#include "runtime/blocks/norm.h"
#include "runtime/declarations.h"
#include "runtime/hparams.h"
#include "runtime/rope.h"

namespace quern {

// One micro-batch on its way through the layers. Row r of every buffer belongs to the same token.
struct Pass {
  Device& device;
  std::span<const SequenceRows> sequences;  // their rows follow one another: [0, n)
  size_t n;
  std::span<const std::unique_ptr<DeviceBuffer>> buffers;      // by BufferId
  std::span<const std::unique_ptr<DeviceBuffer>> rope_tables;  // of Network::ropes()
  std::span<const std::unique_ptr<DeviceRouting>> routings;    // by RoutingId
  const DeviceBuffer* query_scales;                            // [n, 1], of Network::query_scale(); or null
  // Rows that are needed behind the last layer, ascending; nothing: all. Once a network has stored what later
  // positions read of the others, it may drop them: the needed ones are then the first, and n their number.
  std::optional<std::span<const uint32_t>> needed = std::nullopt;

  DeviceBuffer& operator[](BufferId id) const { return *buffers[id]; }
};

// Immutable once its weights are loaded; any number of threads may run passes, each with its own buffers, as
// far as the device lets them.
class Network {
 public:
  // Rows of logits computed together: enough to reuse each row of the output matrix, small beside a cache.
  static constexpr size_t kLogitRows = 32;

  virtual ~Network() = default;
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  const HParams& hparams() const { return hparams_; }
  // Says all tensors and buffers; called once, before any weight is there.
  virtual void declare(Declarations& parts) = 0;
  // n_heads is 0 for a layer without attention.
  virtual AttentionShape attention(size_t layer) const = 0;
  // Floats of a layer's recurrent state; 0: it has none.
  virtual uint64_t state_floats(size_t layer) const {
    (void)layer;
    return 0;
  }
  // Rotations that layers use, for a session whose context has so many positions.
  virtual std::vector<Rope> ropes(uint64_t context) const = 0;
  // The context that a session has at most unless it asks for more.
  virtual uint64_t usual_context() const { return UINT64_MAX; }
  // The context beyond which the model can do nothing.
  virtual uint64_t most_context() const { return UINT64_MAX; }
  // A factor of the queries at a position; nothing: the model has none.
  virtual std::optional<double> query_scale(uint64_t position) const {
    (void)position;
    return std::nullopt;
  }

  // x = embeddings of ids.
  virtual void embed(std::span<const int32_t> ids, const Pass& pass) const;
  // Takes x through layer `index`. The last one may drop rows (Pass::needed).
  virtual void layer(size_t index, Pass& pass) const = 0;
  // Row `row` of the output's input = the final norm of x's row `x_row`, for n rows.
  virtual void final_norm(size_t x_row, size_t n, size_t row, const Pass& pass) const;
  // logits() = of the output's first n inputs; n <= kLogitRows.
  virtual void output(size_t n, const Pass& pass) const;
  BufferId logits() const { return logits_; }
  // What output() has read, its first rows.
  BufferId states() const { return h_; }

  const DeviceMatrix& output_matrix() const { return output_ ? *output_ : *token_embd_; }

 protected:
  Network(HParams hparams, NormKind norm) : hparams_(std::move(hparams)) {
    output_norm_.kind = norm;
    output_norm_.eps = hparams_.norm_eps;
  }
  // Drops the rows of x that nobody needs behind the last layer.
  void drop_rows(Pass& pass) const;

  // token_embd, output_norm, output; x, normed and logits.
  void declare_ends(Declarations& parts, std::string_view norm = "output_norm");

  HParams hparams_;
  Matrix token_embd_;   // [vocab_size, dim]
  Vector output_bias_;  // where the file has one
  Norm output_norm_;
  Matrix output_;           // [vocab_size, dim]; null: tied, token_embd serves
  BufferId x_ = 0, h_ = 0;  // [dim]: the residual stream; an operation's input
  BufferId logits_ = 0;
  float embedding_scale_ = 1;              // of what embed() gives
  float logit_scale_ = 1, logit_cap_ = 0;  // of what output() gives: the scale first; no cap: 0
};

}  // namespace quern
