#include "runtime/blocks/experts.h"

#include <algorithm>

#include "runtime/hparam_reader.h"

namespace quern {

void ExpertsBlock::declare(Declarations& parts, uint64_t dim, uint64_t hidden_dim) {
  if (!parts.holds("ffn_gate_inp.weight"))
    parts.refuse(fmt::format(
        "the layers are said to have {} experts, but a tensor ffn_gate_inp.weight is missing", n_experts));
  parts.matrix("ffn_gate_inp.weight", n_experts, dim, &router);
  parts.vector("ffn_gate_inp.bias", n_experts, &router_bias, parts.kOptional);
  if (rule.score == RouterScore::kSigmoid)
    parts.vector("exp_probs_b.bias", n_experts, &choice_bias, parts.kOptional);
  hidden = hidden_dim;
  const bool fused = parts.holds("ffn_gate_up_exps.weight");
  if (fused) {
    parts.experts("ffn_gate_up_exps.weight", n_experts, n_used, 2 * hidden_dim, dim, &w_gate_up);
    gate_up = parts.buffer("expert_gate_up", 2 * hidden_dim, n_used);
  } else {
    parts.experts("ffn_gate_exps.weight", n_experts, n_used, hidden_dim, dim, &w_gate);
    parts.experts("ffn_up_exps.weight", n_experts, n_used, hidden_dim, dim, &w_up);
  }
  parts.experts("ffn_down_exps.weight", n_experts, n_used, dim, hidden_dim, &w_down);
  parts.vector("ffn_down_exps.scale", n_experts, &factors, parts.kOptional);
  if (!fused) {
    parts.vectors("ffn_gate_exps.bias", n_experts, hidden_dim, &b_gate, parts.kOptional);
    parts.vectors("ffn_up_exps.bias", n_experts, hidden_dim, &b_up, parts.kOptional);
  }
  parts.vectors("ffn_down_exps.bias", n_experts, dim, &b_down, parts.kOptional);
  logits = parts.buffer("router_logits", n_experts);
  gate = parts.buffer("expert_gate", hidden_dim, n_used);
  up = parts.buffer("expert_up", hidden_dim, n_used);
  out = parts.buffer("expert_out", dim, n_used);
  routing = parts.routing(n_experts, n_used);
}

void ExpertsBlock::choose(const DeviceBuffer& x, const Pass& pass) const {
  const Device::Product to_logits{router.get(), &pass[logits], router_bias.get()};
  pass.device.matmul(x, pass.n, {&to_logits, 1}, /*add=*/false);
  RouterRule with_vectors = rule;
  with_vectors.bias = choice_bias.get();
  with_vectors.factors = factors.get();
  pass.device.route(pass[logits], pass.n, with_vectors, *pass.routings[routing]);
}

void ExpertsBlock::run_chosen(const DeviceBuffer& x, DeviceBuffer& y, bool add, const Pass& pass) const {
  Device& device = pass.device;
  const DeviceRouting& choice = *pass.routings[routing];
  const size_t n_choices = pass.n * n_used;
  if (w_gate_up.empty()) {
    const Device::ExpertProduct products[] = {{w_gate, &pass[gate], b_gate.get()},
                                              {w_up, &pass[up], b_up.get()}};
    device.expert_matmul(x, /*sorted=*/false, choice, products);
  } else {
    const Device::ExpertProduct product{w_gate_up, &pass[gate_up]};
    device.expert_matmul(x, /*sorted=*/false, choice, {&product, 1});
    device.copy_columns(pass[gate_up], {0, 2 * hidden}, hidden, n_choices, pass[gate], {0, hidden});
    device.copy_columns(pass[gate_up], {hidden, 2 * hidden}, hidden, n_choices, pass[up], {0, hidden});
  }
  device.activate(activation, pass[gate], &pass[up], n_choices);
  const Device::ExpertProduct down{w_down, &pass[out], b_down.get()};
  device.expert_matmul(pass[gate], /*sorted=*/true, choice, {&down, 1});
  device.combine_experts(pass[out], choice, y, add);
}

void read_expert_counts(HParamReader& keys, uint64_t* n_experts, uint64_t* n_used) {
  constexpr uint64_t kMaxExperts = 1 << 12;
  *n_experts = keys.require_uint("expert_count", 1, kMaxExperts);
  *n_used = keys.require_uint("expert_used_count", 1, *n_experts);
}

void read_expert_groups(HParamReader& keys, uint64_t n_experts, uint64_t n_used, RouterRule* rule) {
  const std::string_view key = "expert_group_count", used_key = "expert_group_used_count";
  const uint64_t n_groups = std::max<uint64_t>(keys.uint_or(key, 1, 0, RouterRule::kMaxGroups), 1);
  const uint64_t n_groups_used = std::max<uint64_t>(keys.uint_or(used_key, n_groups, 0, n_groups), 1);
  if (n_groups == 1) return;
  const uint64_t of_group = n_experts / n_groups;
  if (n_experts % n_groups != 0 || (rule->score == RouterScore::kSigmoid && of_group < 2))
    keys.refuse(key, fmt::format("is {}, which does not fit {} experts", n_groups, n_experts));
  if (n_groups_used * of_group < n_used)
    keys.refuse(used_key, fmt::format("is {}: {} groups of {} experts have no {} to choose", n_groups_used,
                                      n_groups_used, of_group, n_used));
  rule->n_groups = n_groups;
  rule->n_groups_used = n_groups_used;
}

}  // namespace quern
