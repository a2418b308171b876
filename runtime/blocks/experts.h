// A mixture of experts: gated feed-forward networks, of which a router chooses some for each token.
#pragma once

#include "runtime/blocks/feed_forward.h"
#include "runtime/declarations.h"
#include "runtime/network.h"

namespace quern {

class HParamReader;

struct ExpertsBlock {
  uint64_t n_experts = 0, n_used = 0;  // 0: the layer has none
  RouterRule rule;
  Activation activation = Activation::kSwiglu;

  Matrix router;                // [n_experts, dim]
  Vector router_bias;           // [n_experts]; added to the logits
  Vector choice_bias;           // [n_experts]; of the choice alone
  Experts w_gate, w_up;         // [hidden_dim, dim]
  Experts w_down;               // [dim, hidden_dim]
  Vector b_gate, b_up, b_down;  // [n_experts * rows]; where the file has them
  Experts w_gate_up;            // [2 * hidden_dim, dim], in their place where the file has it
  Vector factors;               // [n_experts]; of the experts' weights
  uint64_t hidden = 0;          // hidden_dim
  BufferId logits = 0, gate = 0, up = 0, gate_up = 0, out = 0;
  RoutingId routing = 0;

  // ffn_gate_inp, exp_probs_b, ffn_gate_exps and ffn_up_exps (or both as ffn_gate_up_exps, where the file has
  // it), ffn_down_exps. Set the numbers first.
  void declare(Declarations& parts, uint64_t dim, uint64_t hidden_dim);
  // y = of x; y = y + it with `add`.
  void run(const DeviceBuffer& x, DeviceBuffer& y, bool add, const Pass& pass) const {
    choose(x, pass);
    run_chosen(x, y, add, pass);
  }
  // Its two halves, where the router reads something else. y may be x without `add`.
  void choose(const DeviceBuffer& x, const Pass& pass) const;
  void run_chosen(const DeviceBuffer& x, DeviceBuffer& y, bool add, const Pass& pass) const;
};

// expert_count and expert_used_count.
void read_expert_counts(HParamReader& keys, uint64_t* n_experts, uint64_t* n_used);
// expert_group_count and expert_group_used_count, where the file has them; the rule's score is set.
void read_expert_groups(HParamReader& keys, uint64_t n_experts, uint64_t n_used, RouterRule* rule);

}  // namespace quern
