#include "runtime/engine.h"

#include <algorithm>

#include "quant/machine/host_memory.h"

namespace quern {
namespace {

size_t clamp_micro_batch(size_t micro_batch, uint64_t context) {
  return static_cast<size_t>(std::clamp<uint64_t>(micro_batch, 1, context));
}

uint64_t rows_of(const BufferDeclaration& buffer, size_t micro_batch) {
  if (buffer.rows_per_token == 0) return std::min(micro_batch, Network::kLogitRows);
  return micro_batch * buffer.rows_per_token;
}

std::vector<AttentionShape> attention_of(const Network& network) {
  std::vector<AttentionShape> attention;
  for (size_t i = 0; i < network.hparams().n_layers; ++i)
    if (network.attention(i).n_kv_heads != 0) attention.push_back(network.attention(i));
  return attention;
}

}  // namespace

Sequence::Sequence(const Model& model)
    : model_(model), cache_(model.device().allocate_kv(model.kv_shape())) {}

// Layers with a ring keep the last segments: what position n sees must be among them.
bool Sequence::cache_reaches(size_t n) const {
  if (n == 0 || n_stored_ == 0) return true;
  const KvShape& shape = model_.kv_shape();
  const size_t last_segment = (n_stored_ - 1) / kAttentionSegment;
  for (size_t i = 0; i < shape.layers.size(); ++i) {
    if (shape.layers[i].kept == 0) continue;
    const size_t window = model_.network().attention(i).window;
    if (first_visible_key(n, window) / kAttentionSegment + shape.segments_of(shape.layers[i]) <= last_segment)
      return false;
  }
  return true;
}

void Sequence::truncate(size_t n) {
  QUERN_CHECK(n <= position());
  tokens_.resize(n);
  if (n < n_cached_) go_back_to_state(n);
  if (!cache_reaches(n_cached_)) n_cached_ = 0;
  if (n_cached_ == 0) n_stored_ = 0;
}

size_t Sequence::n_cached() const {
  if (!torn_ || !has_states()) return n_cached_;
  const Snapshot* const snapshot = last_snapshot(n_cached_);
  return snapshot == nullptr ? 0 : snapshot->position;
}

const Sequence::Snapshot* Sequence::last_snapshot(size_t n) const {
  const Snapshot* last = nullptr;
  for (const Snapshot& snapshot : snapshots_)
    if (snapshot.position <= n && (last == nullptr || snapshot.position > last->position)) last = &snapshot;
  return last;
}

// The last position up to n whose state is there; n itself for models without.
void Sequence::go_back_to_state(size_t n) {
  if (!has_states()) {
    n_cached_ = n;
    return;
  }
  std::erase_if(snapshots_, [&](const Snapshot& snapshot) { return snapshot.position > n; });
  if (n > rows_begin_ && n - rows_begin_ <= n_rows_) {
    n_cached_ = n;
    state_slot_ = n - rows_begin_;
    return;
  }
  const Snapshot* const snapshot = last_snapshot(n);
  n_cached_ = snapshot == nullptr ? 0 : snapshot->position;
  state_slot_ = snapshot == nullptr ? 0 : snapshot->slot;
  n_rows_ = 0;
}

// Of a pass with n rows of this sequence. Returns the slot that will hold a snapshot; 0: none. A pass that
// does not come to its end leaves the snapshots that are known until then.
size_t Sequence::begin_pass(size_t n) {
  n_stored_ = std::max(n_stored_, n_cached_ + n);
  torn_ = true;
  n_rows_ = 0;
  if (!has_snapshots() || (n_cached_ + n) % kSnapshotDistance != 0) return 0;
  const size_t n_slots = model_.kv_shape().state_slots;
  std::vector<bool> taken(n_slots);
  if (snapshots_.size() == n_slots - KvShape::kStateRows) snapshots_.erase(snapshots_.begin());
  for (const Snapshot& snapshot : snapshots_) taken[snapshot.slot] = true;
  size_t slot = KvShape::kStateRows;
  while (taken[slot]) ++slot;
  return slot;
}

void Sequence::end_pass(size_t n, size_t snapshot_slot) {
  if (n <= KvShape::kStateRows) {
    rows_begin_ = n_cached_;
    n_rows_ = n - 1;
  }
  n_cached_ += n;
  state_slot_ = 0;
  torn_ = false;
  if (snapshot_slot != 0) snapshots_.push_back({n_cached_, snapshot_slot});
}

// A window's ring has as many positions to spare (ModelLoader::kv_shape). Passes end where snapshots are
// taken.
size_t Sequence::rows_to_take_back() const {
  if (n_cached() != position()) return 0;
  const size_t rows = std::min<uint64_t>(KvShape::kStateRows, model_.context() - position());
  return has_snapshots() ? std::min(rows, kSnapshotDistance - position() % kSnapshotDistance) : rows;
}

size_t Sequence::common_prefix(std::span<const int32_t> tokens) const {
  const auto [end, unused] = std::mismatch(tokens_.begin(), tokens_.end(), tokens.begin(), tokens.end());
  return static_cast<size_t>(end - tokens_.begin());
}

size_t Sequence::reuse_prefix(std::span<const int32_t> tokens) {
  const size_t n = std::min(common_prefix(tokens), tokens.empty() ? 0 : tokens.size() - 1);
  truncate(n);
  return n;
}

// Do all rings still have a segment?
bool Sequence::has_ring(size_t segment) const {
  const KvShape& shape = model_.kv_shape();
  for (const KvLayer& layer : shape.layers)
    if (shape.is_ring(layer) && segment + shape.segments_of(layer) <= (n_stored_ - 1) / kAttentionSegment)
      return false;
  return true;
}

// Where the states behind the first n tokens lie.
std::optional<size_t> Sequence::slot_of_state(size_t n) const {
  if (!has_states()) return 0;
  if (!torn_ && n == n_cached_) return state_slot_;
  if (!torn_ && n > rows_begin_ && n - rows_begin_ <= n_rows_) return n - rows_begin_;
  for (const Snapshot& snapshot : snapshots_)
    if (snapshot.position == n) return snapshot.slot;
  return std::nullopt;
}

bool Sequence::save_block(size_t index, std::span<uint8_t> block) const {
  QUERN_CHECK(index < n_blocks());
  const std::optional<size_t> slot = slot_of_state((index + 1) * kBlock);
  if (!slot || !has_ring(index) || !model_.device().copies_blocks()) return false;
  model_.device().save_kv(*cache_, index, *slot, block);
  return true;
}

// The states behind all tokens are in the first slot, and none else is there.
void Sequence::become(std::span<const int32_t> tokens, size_t n_stored) {
  tokens_.assign(tokens.begin(), tokens.end());
  n_cached_ = tokens_.size();
  n_stored_ = n_stored;
  state_slot_ = n_rows_ = 0;
  snapshots_.clear();
  torn_ = false;
}

void Sequence::restore(std::span<const int32_t> tokens, std::span<const std::span<const uint8_t>> blocks) {
  QUERN_CHECK(tokens.size() == blocks.size() * kBlock && tokens.size() <= model_.context());
  truncate(common_prefix(tokens));
  const size_t n_kept = n_blocks();
  for (size_t i = 0; i < blocks.size(); ++i)
    model_.device().load_kv(*cache_, i, {.whole = i >= n_kept, .states = i + 1 == blocks.size()}, blocks[i]);
  become(tokens, tokens.size());
}

bool Sequence::copy(const Sequence& other, size_t n) {
  QUERN_CHECK(&model_ == &other.model_ && this != &other);
  if (n == 0 || n > other.n_cached() || !other.cache_reaches(n) || !model_.device().copies_blocks())
    return false;
  const std::optional<size_t> slot = other.slot_of_state(n);
  if (!slot) return false;
  const std::span<const int32_t> tokens = std::span(other.tokens_).first(n);
  truncate(common_prefix(tokens));
  const KvShape& shape = model_.kv_shape();
  const size_t segment_keys = shape.segment_keys(), n_kept = n_cached() / segment_keys;
  const bool has_rings = std::any_of(shape.layers.begin(), shape.layers.end(),
                                     [&](const KvLayer& layer) { return shape.is_ring(layer); });
  HostMemory block(block_bytes(), "a block of the KV cache");
  const size_t n_segments = (n + segment_keys - 1) / segment_keys;
  for (size_t i = 0; i < n_segments; ++i) {
    const KvBlockParts parts{.whole = i >= n_kept, .rings = has_rings, .states = i + 1 == n_segments};
    if (!parts.whole && !parts.rings && !parts.states) continue;
    model_.device().save_kv(*other.cache_, i, *slot, {block.data(), block.size()});
    model_.device().load_kv(*cache_, i, parts, {block.data(), block.size()});
  }
  // Its rings have what the other's have.
  become(tokens, other.n_stored_);
  return true;
}

uint64_t Engine::scratch_bytes(const Device& device, const Network& network, const Declarations& parts,
                               uint64_t context, size_t micro_batch) {
  // Pages of the program that the first pass brings in, and small allocations: without them a plan was found
  // to be 0.07 MB short.
  constexpr uint64_t kOfTheProgram = 1u << 20;
  const size_t n = clamp_micro_batch(micro_batch, context);
  uint64_t bytes = kOfTheProgram;
  for (const BufferDeclaration& buffer : parts.buffers())
    bytes += device.buffer_bytes(rows_of(buffer, n), buffer.width);
  for (const Rope& rope : network.ropes(context)) bytes += device.buffer_bytes(n, rope.rotary_dim());
  return bytes + device.scratch_bytes(n * parts.most_rows_per_token(), parts.widest_input(),
                                      attention_of(network), context);
}

Engine::Engine(const Model& model, size_t micro_batch)
    : model_(model),
      micro_batch_(clamp_micro_batch(std::min(micro_batch, kMicroBatch), model.context())),
      ropes_(model.network().ropes(model.context())),
      logits_(model.hparams().vocab_size),
      states_(model.hparams().dim) {
  Device& device = model.device();
  device.reserve_scratch(micro_batch_ * model.parts().most_rows_per_token(), model.parts().widest_input(),
                         attention_of(model.network()), model.context());
  for (const BufferDeclaration& buffer : model.parts().buffers())
    buffers_.push_back(device.allocate(rows_of(buffer, micro_batch_), buffer.width));
  for (const Rope& rope : ropes_) {
    rope_tables_.push_back(device.allocate(micro_batch_, rope.rotary_dim()));
    table_.resize(std::max(table_.size(), micro_batch_ * rope.rotary_dim()));
  }
  for (const RoutingDeclaration& routing : model.parts().routings())
    routings_.push_back(device.allocate_routing(micro_batch_, routing.n_experts, routing.n_used));
  if (model.network().query_scale(0)) {
    query_scales_ = device.allocate(micro_batch_, 1);
    table_.resize(std::max(table_.size(), micro_batch_));
  }
}

Engine::~Engine() = default;

void Engine::upload_positions(const Pass& pass) {
  pass.device.enter_layer(Device::kBeforeLayers);
  for (size_t i = 0; i < ropes_.size(); ++i) {
    const std::span<float> table = std::span(table_).first(pass.n * ropes_[i].rotary_dim());
    ropes_[i].fill(pass.sequences, table);
    pass.device.upload(table, *rope_tables_[i], 0);
  }
  if (!query_scales_) return;
  float* scale = table_.data();
  for (const SequenceRows& rows : pass.sequences)
    for (size_t t = 0; t < rows.n; ++t)
      *scale++ = static_cast<float>(*model_.network().query_scale(rows.position + t));
  pass.device.upload(std::span<const float>(table_).first(pass.n), *query_scales_, 0);
}

bool Engine::forward(Pass& pass, std::span<const int32_t> ids, StopFlag stop) {
  upload_positions(pass);
  const Network& network = model_.network();
  network.embed(ids, pass);
  for (size_t i = 0; i < model_.hparams().n_layers; ++i) {
    if (stop.is_set()) return false;
    pass.device.enter_layer(i);
    network.layer(i, pass);
  }
  return true;
}

void Engine::fail_on_nan(std::span<const SequenceRows> sequences) {
  const std::optional<NanPlace> nan = model_.device().take_nan();
  if (!nan) return;
  for (const SequenceRows& rows : sequences)
    if (nan->row < rows.row_begin + rows.n)
      fail(ErrorCode::kIntegrity,
           "NaN in the keys or values of layer {} at position {}; the weights may be damaged "
           "(--check-tensors looks at them)",
           nan->layer, rows.position + nan->row - rows.row_begin);
}

Pass Engine::pass_of(std::span<const SequenceRows> sequences, size_t n) const {
  return {model_.device(), sequences, n, buffers_, rope_tables_, routings_, query_scales_.get(), {}};
}

void Engine::with_pass(std::span<const SequenceRows> sequences, const std::function<void(Pass& pass)>& body) {
  size_t n = 0;
  for (const SequenceRows& rows : sequences) n += rows.n;
  QUERN_CHECK(n >= 1 && n <= micro_batch_);
  Pass pass = pass_of(sequences, n);
  model_.device().run_pass([&] {
    upload_positions(pass);
    body(pass);
  });
}

bool Engine::run(std::span<const Work> work, const RunControl& control) {
  EngineRun steps(*this, work);
  Device& device = model_.device();
  if (control.on_micro_batch) control.on_micro_batch();
  while (!steps.finished()) {
    bool stopped = false;
    size_t begin = 0, end = 0;  // rows whose logits are on the device
    const auto compute = [&] {
      begin = end;
      end += std::min(Network::kLogitRows, steps.n_logits() - begin);
      if (begin < end) steps.compute_logits(begin, end - begin);
    };
    // The first rows with the layers, so that a token takes one pass.
    device.run_pass([&] {
      stopped = !steps.step(control.stop);
      if (!stopped) compute();
    });
    if (stopped) return false;
    if (control.on_micro_batch) control.on_micro_batch();
    while (begin < end) {
      for (size_t i = begin; i < end; ++i) steps.work_of(i).on_logits(steps.index_of(i), steps.logits(i));
      if (end == steps.n_logits()) break;
      device.run_pass(compute);
    }
  }
  return true;
}

// Rows of a micro-batch that one work has.
struct EngineRun::Rows {
  const Work* work;
  size_t row_begin, n;
  size_t first;    // index in work->tokens of the first row that is not evaluated again
  size_t n_again;  // rows in front of it that are
};

EngineRun::EngineRun(Engine& engine, std::span<const Work> work)
    : engine_(engine), work_(work), done_(work.size()) {
  check();
  finished_ = std::all_of(work.begin(), work.end(), [](const Work& w) { return w.tokens.empty(); });
}

EngineRun::~EngineRun() = default;

void EngineRun::check() const {
  const Model& model = engine_.model_;
  for (const Work& w : work_) {
    const size_t position = w.sequence->position();
    if (w.tokens.size() > model.context() - position)
      fail(ErrorCode::kResource,
           "{} tokens do not fit: {} of the context's {} positions are taken; a larger --ctx is needed",
           w.tokens.size(), position, model.context());
    for (const int32_t id : w.tokens)
      if (id < 0 || static_cast<uint32_t>(id) >= model.hparams().vocab_size)
        fail(ErrorCode::kUsage, "token id {}: expected 0 to {}", id, model.hparams().vocab_size - 1);
  }
}

// As many as a micro-batch has room for.
void EngineRun::take_rows() {
  sequences_.clear();
  rows_.clear();
  ids_.clear();
  for (size_t i = 0; i < work_.size() && ids_.size() < engine_.micro_batch_; ++i) {
    const Work& w = work_[i];
    Sequence& s = *w.sequence;
    if (s.torn_) s.go_back_to_state(s.n_cached_);
    const std::span<const int32_t> again = std::span<const int32_t>(s.tokens_).subspan(s.n_cached_),
                                   left = w.tokens.subspan(done_[i]);
    // Without new tokens there is nothing that the old ones are needed for.
    if (left.empty()) continue;
    size_t room = engine_.micro_batch_ - ids_.size();
    constexpr size_t kDistance = Sequence::kSnapshotDistance;
    if (s.has_snapshots()) room = std::min(room, kDistance - s.n_cached_ % kDistance);
    const size_t n_again = std::min(again.size(), room), n_new = std::min(left.size(), room - n_again);
    sequences_.push_back({s.cache_.get(), s.n_cached_, ids_.size(), n_again + n_new, s.state_slot_, 0});
    rows_.push_back({&w, ids_.size(), n_again + n_new, done_[i], n_again});
    ids_.insert(ids_.end(), again.begin(), again.begin() + static_cast<ptrdiff_t>(n_again));
    ids_.insert(ids_.end(), left.begin(), left.begin() + static_cast<ptrdiff_t>(n_new));
  }
}

bool EngineRun::step(StopFlag stop) {
  QUERN_CHECK(!finished_);
  take_rows();
  wanted_.clear();
  needed_.clear();
  std::vector<Wanted> wanted;
  for (size_t k = 0; k < rows_.size(); ++k) {
    const Rows& r = rows_[k];
    sequences_[k].state_to = r.work->sequence->begin_pass(r.n);
    for (size_t i = r.n_again; i < r.n; ++i) {
      const size_t index = r.first + i - r.n_again, row = r.row_begin + i;
      if (index + r.work->n_logits < r.work->tokens.size()) continue;
      wanted.push_back({r.work, index, row});
      needed_.push_back(static_cast<uint32_t>(row));
    }
  }
  Pass pass = engine_.pass_of(sequences_, ids_.size());
  if (!engine_.finishes_all_rows_) pass.needed = needed_;
  if (!engine_.forward(pass, ids_, stop)) return false;
  engine_.fail_on_nan(sequences_);
  if (pass.n != ids_.size())
    for (size_t i = 0; i < wanted.size(); ++i) wanted[i].row = i;
  engine_.rows_dropped_ += ids_.size() - pass.n;
  wanted_ = std::move(wanted);
  for (size_t k = 0; k < rows_.size(); ++k) {
    const Rows& r = rows_[k];
    Sequence& s = *r.work->sequence;
    const auto added = r.work->tokens.subspan(r.first, r.n - r.n_again);
    s.tokens_.insert(s.tokens_.end(), added.begin(), added.end());
    s.end_pass(r.n, sequences_[k].state_to);
    done_[static_cast<size_t>(r.work - work_.data())] += added.size();
  }
  finished_ = true;
  for (size_t i = 0; i < work_.size(); ++i) finished_ = finished_ && done_[i] == work_[i].tokens.size();
  return true;
}

void EngineRun::compute_logits(size_t begin, size_t n) {
  QUERN_CHECK(n <= Network::kLogitRows && begin + n <= wanted_.size());
  const Network& network = engine_.model_.network();
  const Pass pass = engine_.pass_of(sequences_, ids_.size());
  pass.device.enter_layer(engine_.model_.hparams().n_layers);
  for (size_t i = 0; i < n;) {  // rows that follow one another together
    size_t run = 1;
    while (i + run < n && wanted_[begin + i + run].row == wanted_[begin + i].row + run) ++run;
    network.final_norm(wanted_[begin + i].row, run, i, pass);
    i += run;
  }
  const auto of_logits = [](const Wanted& row) { return row.work->values == RowValues::kLogits; };
  const auto first = wanted_.begin() + static_cast<ptrdiff_t>(begin);
  if (std::any_of(first, first + static_cast<ptrdiff_t>(n), of_logits)) network.output(n, pass);
  computed_begin_ = begin;
}

std::span<const float> EngineRun::logits(size_t i) {
  Engine& e = engine_;
  const Network& network = e.model_.network();
  const bool states = work_of(i).values == RowValues::kStates;
  const std::span<float> values = states ? std::span(e.states_) : std::span(e.logits_);
  e.model_.device().download(*e.buffers_[states ? network.states() : network.logits()], i - computed_begin_,
                             values);
  return values;
}

}  // namespace quern
