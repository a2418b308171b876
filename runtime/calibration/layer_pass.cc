#include "runtime/calibration/layer_pass.h"

#include <algorithm>

#include "kernels/cpu_device.h"

namespace quern {
namespace {

// Ends a layer that has given what was wanted of it.
struct InputFound {};

// Ends listening, whatever happens.
struct Listening {
  Device& device;
  ~Listening() { observe_products(device, {}); }
};

}  // namespace

LayerPass::LayerPass(const Model& model)
    : model_(model), engine_(model), cache_(model.device().allocate_kv(model.kv_shape())), x_(stream()) {}

LayerPass::~LayerPass() = default;

BufferId LayerPass::stream() const {
  const std::vector<BufferDeclaration>& buffers = model_.parts().buffers();
  const auto found =
      std::ranges::find_if(buffers, [](const BufferDeclaration& buffer) { return buffer.name == "x"; });
  QUERN_CHECK(found != buffers.end());
  return static_cast<BufferId>(found - buffers.begin());
}

void LayerPass::run_rows(size_t n, const std::function<void(Pass& pass)>& body) {
  const SequenceRows rows{cache_.get(), 0, 0, n};
  engine_.with_pass({&rows, 1}, body);
}

void LayerPass::embed(std::span<const int32_t> ids, std::span<float> x) {
  run_rows(ids.size(), [&](Pass& pass) {
    model_.network().embed(ids, pass);
    pass.device.download(pass[x_], 0, x);
  });
}

void LayerPass::run(size_t layer, std::span<float> x) {
  const size_t n = x.size() / dim();
  run_rows(n, [&](Pass& pass) {
    pass.device.upload(x, pass[x_], 0);
    model_.network().layer(layer, pass);
    pass.device.download(pass[x_], 0, x);
  });
  if (const auto nan = model_.device().take_nan())
    fail(ErrorCode::kIntegrity, "NaN in the keys or values of layer {} at position {} of a calibration text",
         layer, nan->row);
}

void LayerPass::input_of(const DeviceMatrix& matrix, size_t layer, std::span<const float> x,
                         std::span<float> input) {
  const size_t n = x.size() / dim();
  const Listening listening{model_.device()};
  bool found = false;
  observe_products(model_.device(), [&](const DeviceMatrix& weight, std::span<const float* const> rows) {
    if (&weight != &matrix) return;
    QUERN_CHECK(rows.size() == n && input.size() == n * matrix.columns());
    for (size_t r = 0; r < n; ++r) std::copy_n(rows[r], matrix.columns(), &input[r * matrix.columns()]);
    found = true;
    throw InputFound{};
  });
  try {
    run_rows(n, [&](Pass& pass) {
      pass.device.upload(x, pass[x_], 0);
      model_.network().layer(layer, pass);
    });
  } catch (const InputFound&) {
  }
  QUERN_CHECK(found);
  (void)model_.device().take_nan();  // the input says as much, and is looked at
}

void LayerPass::logits(std::span<const float> x,
                       const std::function<void(size_t row, std::span<const float> logits)>& on_row) {
  const size_t n = x.size() / dim();
  std::vector<float> values(model_.hparams().vocab_size);
  run_rows(n, [&](Pass& pass) {
    pass.device.upload(x, pass[x_], 0);
    for (size_t row = 0; row < n; row += Network::kLogitRows) {
      const size_t count = std::min(Network::kLogitRows, n - row);
      model_.network().final_norm(row, count, 0, pass);
      model_.network().output(count, pass);
      for (size_t i = 0; i < count; ++i) {
        pass.device.download(pass[model_.network().logits()], i, values);
        on_row(row + i, values);
      }
    }
  });
}

}  // namespace quern
