// The CPU device on a small chain of operations that looks like a layer of a model: the same bits for every
// format, kernel set, number of threads and size of batch.
#include "kernels/cpu_device.h"

#include <gtest/gtest.h>

#include <cstring>
#include <mutex>
#include <numeric>

#include "quant/panel_layout.h"
#include "tests/kernels/kv_memory.h"
#include "tests/support/weight_blocks.h"

namespace quern {
namespace {

using test::same_bits;

constexpr size_t kDim = 256, kHidden = 256, kVocab = 70, kHeads = 4, kKvHeads = 2, kHeadDim = 64;
constexpr size_t kKvDim = kKvHeads * kHeadDim, kRotaryDim = 32, kWindow = 12, kTokens = 22;
constexpr AttentionShape kShape{kHeads, kKvHeads, kHeadDim, kWindow};

// A tensor and its bytes.
struct Tensor {
  std::vector<uint8_t> bytes;
  TensorView view;
};

Tensor make_tensor(const BlockFormat& format, Shape shape, uint32_t seed, std::string name = "weight") {
  Tensor tensor;
  tensor.view.name = std::move(name);
  tensor.view.dtype = format.dtype;
  tensor.view.shape = std::move(shape);
  tensor.bytes.resize(tensor.view.n_elements() / format.block_weights * format.block_bytes);
  std::mt19937 random(seed);
  test::RandomBlocks(format, 0.1f).fill(random, tensor.bytes);
  tensor.view.data = tensor.bytes.data();
  tensor.view.n_bytes = tensor.bytes.size();
  return tensor;
}

// The same matrix as a file of panels has it: whole panels, then the rest as rows.
void turn_into_panels(Tensor& tensor) {
  const DType dtype = tensor.view.dtype;
  const std::vector<uint8_t> rows = tensor.bytes;
  const size_t columns = tensor.view.columns(), row_bytes = block_format(dtype).row_bytes(columns);
  for (size_t row = 0; row + kPanelRows <= tensor.view.rows(); row += kPanelRows)
    pack_panel(dtype, &rows[row * row_bytes], kPanelRows, columns, &tensor.bytes[row * row_bytes]);
  tensor.view.layout = TensorLayout::kPanels;
}

// One layer's weights.
struct Weights {
  explicit Weights(const BlockFormat& format)
      : embedding(make_tensor(format, {kVocab, kDim}, 1)),
        q(make_tensor(format, {kHeads * kHeadDim, kDim}, 2)),
        k(make_tensor(format, {kKvDim, kDim}, 3)),
        v(make_tensor(format, {kKvDim, kDim}, 4)),
        o(make_tensor(format, {kDim, kHeads * kHeadDim}, 5)),
        gate(make_tensor(format, {kHidden, kDim}, 6)),
        up(make_tensor(format, {kHidden, kDim}, 7)),
        down(make_tensor(format, {kDim, kHidden}, 8)),
        norm(make_tensor(block_format(DType::F32), {kDim}, 9)) {}
  void turn_all_into_panels() {
    for (Tensor* tensor : {&embedding, &q, &k, &v, &o, &gate, &up, &down}) turn_into_panels(*tensor);
  }
  Tensor embedding, q, k, v, o, gate, up, down, norm;
};

std::vector<float> angles(size_t position, size_t n) {
  std::vector<float> cos_sin;
  for (size_t t = position; t < position + n; ++t)
    for (size_t i = 0; i < kRotaryDim / 2; ++i) {
      const double angle = static_cast<double>(t) / std::pow(100.0, static_cast<double>(i) / 16);
      cos_sin.push_back(static_cast<float>(std::cos(angle)));
      cos_sin.push_back(static_cast<float>(std::sin(angle)));
    }
  return cos_sin;
}

// A layer on a device.
class Layer {
 public:
  Layer(const Weights& weights, const KernelSet& set, int n_threads, KvType kv)
      : device_(make_cpu_device(set, n_threads)),
        embedding_(device_->load_matrix(weights.embedding.view, MatrixUse::kBoth)),
        q_(load(weights.q)),
        k_(load(weights.k)),
        v_(load(weights.v)),
        o_(load(weights.o)),
        gate_(load(weights.gate)),
        up_(load(weights.up)),
        down_(load(weights.down)),
        norm_(device_->load_vector(weights.norm.view)),
        cache_(device_->allocate_kv(test::same_layers(2, kKvHeads, kHeadDim, kTokens, kv))) {}

  // Appends the logits of each token to `logits`: [n, kVocab].
  void run(std::span<const int32_t> ids, std::vector<float>& logits) {
    Device& d = *device_;
    const size_t n = ids.size();
    const auto x = d.allocate(n, kDim), y = d.allocate(n, kDim), q = d.allocate(n, kHeads * kHeadDim);
    const auto k = d.allocate(n, kKvDim), v = d.allocate(n, kKvDim), out = d.allocate(n, kHeads * kHeadDim);
    const auto gate = d.allocate(n, kHidden), up = d.allocate(n, kHidden), z = d.allocate(n, kVocab);
    const auto rope = d.allocate(n, kRotaryDim);
    const SequenceRows rows{cache_.get(), position_, 0, n};
    d.upload(angles(position_, n), *rope, 0);
    d.embed(*embedding_, ids, *x);
    for (size_t layer = 0; layer < 2; ++layer) {
      d.rms_norm(*x, 0, n, *norm_, 1e-5f, *y, 0);
      const Device::Product qkv[] = {{q_.get(), q.get()}, {k_.get(), k.get()}, {v_.get(), v.get()}};
      d.matmul(*y, n, qkv, false);
      d.store_heads(kShape, layer, {&rows, 1}, {.rope = rope.get()}, *q, *k, *v);
      ASSERT_EQ(d.take_nan(), std::nullopt);
      d.attention(kShape, layer, {&rows, 1}, *q, *out);
      const Device::Product o[] = {{o_.get(), x.get()}};
      d.matmul(*out, n, o, true);
      d.rms_norm(*x, 0, n, *norm_, 1e-5f, *y, 0);
      const Device::Product gate_up[] = {{gate_.get(), gate.get()}, {up_.get(), up.get()}};
      d.matmul(*y, n, gate_up, false);
      d.activate(Activation::kSwiglu, *gate, up.get(), n);
      const Device::Product down[] = {{down_.get(), x.get()}};
      d.matmul(*gate, n, down, true);
    }
    const Device::Product head[] = {{embedding_.get(), z.get()}};
    d.matmul(*x, n, head, false);
    for (size_t t = 0; t < n; ++t) {
      logits.resize(logits.size() + kVocab);
      d.download(*z, t, std::span(logits).last(kVocab));
    }
    position_ += n;
  }

 private:
  std::unique_ptr<DeviceMatrix> load(const Tensor& tensor) {
    return device_->load_matrix(tensor.view, MatrixUse::kProduct);
  }

  std::unique_ptr<Device> device_;
  std::unique_ptr<DeviceMatrix> embedding_, q_, k_, v_, o_, gate_, up_, down_;
  std::unique_ptr<DeviceBuffer> norm_;
  std::unique_ptr<DeviceKvCache> cache_;
  size_t position_ = 0;
};

std::vector<float> run(const Weights& weights, const KernelSet& set, int n_threads, KvType kv,
                       const std::vector<size_t>& chunks) {
  Layer layer(weights, set, n_threads, kv);
  std::vector<int32_t> ids(kTokens);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 7 % kVocab);
  std::vector<float> logits;
  size_t done = 0;
  for (const size_t n : chunks) {
    layer.run(std::span(ids).subspan(done, n), logits);
    done += n;
  }
  while (done < kTokens) layer.run(std::span(ids).subspan(done++, 1), logits);
  return logits;
}

class EveryFormat : public testing::TestWithParam<DType> {};

std::string format_name(const testing::TestParamInfo<DType>& format) {
  return std::string(block_format(format.param).name);
}
INSTANTIATE_TEST_SUITE_P(Formats, EveryFormat, testing::ValuesIn(test::decodable_formats()), format_name);

TEST_P(EveryFormat, HasTheSameBitsForAnySetThreadsAndChunks) {
  const Weights weights(block_format(GetParam()));
  for (const KvType kv : {KvType::kF16, KvType::kF32, KvType::kQ8_0}) {
    if (QUERN_SANITIZED && kv != KvType::kF16 && GetParam() != DType::Q8_0) continue;
    const std::vector<float> expected = run(weights, test::reference_set(), 1, kv, {kTokens});
    ASSERT_EQ(expected.size(), kTokens * kVocab);
    for (const float z : expected) ASSERT_TRUE(std::isfinite(z));
    const struct {
      int n_threads;
      std::vector<size_t> chunks;  // then one by one
    } ways[] = {{1, {kTokens}}, {3, {kTokens}}, {1, {5, 1, 12, 2}}, {3, {}}};
    for (const KernelSet* set : test::supported_sets())
      for (const auto& way : ways)
        EXPECT_TRUE(same_bits(run(weights, *set, way.n_threads, kv, way.chunks), expected))
            << set->name << ", " << way.n_threads << " threads, " << way.chunks.size() << " chunks";
  }
}

TEST_P(EveryFormat, HasTheSameBitsFromPanelsOfAFile) {
  if (!has_panel_layout(GetParam())) GTEST_SKIP() << "no panels";
  Weights weights(block_format(GetParam()));
  const std::vector<float> expected = run(weights, test::reference_set(), 1, KvType::kF16, {kTokens});
  weights.turn_all_into_panels();
  for (const KernelSet* set : test::supported_sets())
    for (const auto& [n_threads, chunks] : {std::pair(1, std::vector<size_t>{kTokens}), {3, {3, 17}}})
      EXPECT_TRUE(same_bits(run(weights, *set, n_threads, KvType::kF16, chunks), expected))
          << set->name << ", " << n_threads << " threads";
}

TEST(CpuDevice, LetsGoOfAllThatItHasCopiedAndNothingElse) {
  for (const bool panels : {false, true}) {
    Tensor table = make_tensor(block_format(DType::Q8_0), {kVocab, kDim}, 1);
    if (panels) turn_into_panels(table);
    for (const KernelSet* set : test::supported_sets()) {
      for (const MatrixUse use : {MatrixUse::kProduct, MatrixUse::kGather, MatrixUse::kBoth}) {
        const auto device = make_cpu_device(*set, 3);
        std::mutex mutex;
        std::vector<int> times(table.bytes.size());
        const auto matrix = device->load_matrix(table.view, use, [&](const uint8_t* begin, uint64_t n) {
          const std::lock_guard lock(mutex);
          for (uint64_t i = 0; i < n; ++i) ++times.at(static_cast<size_t>(begin - table.bytes.data()) + i);
        });
        const int expected = device->matrix_memory(table.view, use).keeps_source ? 0 : 1;
        EXPECT_EQ(std::count(times.begin(), times.end(), expected), std::ssize(times)) << set->name;
      }
    }
  }
}

TEST(CpuDevice, NamesItsSetAndThreads) {
  EXPECT_EQ(make_cpu_device(test::reference_set(), 2)->name(), "CPU (scalar, 2 threads)");
  EXPECT_EQ(make_cpu_device(test::reference_set(), 1)->name(), "CPU (scalar, 1 thread)");
}

TEST(CpuDevice, MultipliesLikeTheDecodedWeightsInDouble) {
  // Float weights, several products of different heights sharing x, with and without adding.
  const Tensor a = make_tensor(block_format(DType::F32), {33, 40}, 1),
               b = make_tensor(block_format(DType::F32), {5, 40}, 2);
  const Tensor input = make_tensor(block_format(DType::F32), {3, 40}, 3);
  for (const KernelSet* set : test::supported_sets()) {
    const auto device = make_cpu_device(*set, 3);
    const auto wa = device->load_matrix(a.view, MatrixUse::kProduct),
               wb = device->load_matrix(b.view, MatrixUse::kProduct);
    const auto rows = device->load_matrix(input.view, MatrixUse::kGather);
    const auto x = device->allocate(3, 40), ya = device->allocate(3, 33), yb = device->allocate(3, 5);
    device->embed(*rows, std::vector<int32_t>{2, 0, 1}, *x);
    const Device::Product products[] = {{wa.get(), ya.get()}, {wb.get(), yb.get()}};
    device->matmul(*x, 3, products, false);
    device->matmul(*x, 3, products, true);
    const auto check = [&](const Tensor& w, const DeviceBuffer& y, size_t n_rows) {
      const float* weight = reinterpret_cast<const float*>(w.bytes.data());
      for (size_t t = 0; t < 3; ++t) {
        std::vector<float> row(n_rows);
        device->download(y, t, row);
        const float* in = reinterpret_cast<const float*>(input.bytes.data()) + (t + 2) % 3 * 40;
        for (size_t r = 0; r < n_rows; ++r) {
          double sum = 0, absolute = 0;
          for (size_t k = 0; k < 40; ++k) {
            sum += double{weight[r * 40 + k]} * in[k];
            absolute += std::abs(double{weight[r * 40 + k]} * in[k]);
          }
          ASSERT_NEAR(row[r], 2 * sum, 2 * 41 * 0x1p-24 * absolute) << set->name;
        }
      }
    };
    check(a, *ya, 33);
    check(b, *yb, 5);
  }
}

// Kernels may read activations in different forms: products that share an input give what each gives alone.
TEST(CpuDevice, MultipliesMatricesOfDifferentFormatsTogether) {
  constexpr size_t kColumns = 512, kMost = 70;
  std::vector<Tensor> tensors;
  for (const DType dtype : {DType::Q4_0, DType::Q8_0, DType::F32, DType::Q8_0, DType::Q6_K, DType::F16})
    tensors.push_back(
        make_tensor(block_format(dtype), {33, kColumns}, static_cast<uint32_t>(tensors.size())));
  const Tensor input = make_tensor(block_format(DType::F32), {kMost, kColumns}, 3);
  std::vector<int32_t> ids(kMost);
  std::iota(ids.begin(), ids.end(), 0);
  for (const KernelSet* set : test::supported_sets()) {
    const auto device = make_cpu_device(*set, 2);
    const auto rows = device->load_matrix(input.view, MatrixUse::kGather);
    const auto x = device->allocate(kMost, kColumns);
    device->embed(*rows, ids, *x);
    for (const size_t n : {1, 5, 70}) {
      std::vector<std::unique_ptr<DeviceMatrix>> weights;
      std::vector<std::unique_ptr<DeviceBuffer>> together, alone;
      std::vector<Device::Product> products;
      for (const Tensor& tensor : tensors) {
        weights.push_back(device->load_matrix(tensor.view, MatrixUse::kProduct));
        together.push_back(device->allocate(kMost, 33));
        alone.push_back(device->allocate(kMost, 33));
        products.push_back({weights.back().get(), together.back().get()});
      }
      for (const bool add : {false, true}) {
        device->matmul(*x, n, products, add);
        for (size_t i = 0; i < products.size(); ++i) {
          const Device::Product one[] = {{weights[i].get(), alone[i].get()}};
          device->matmul(*x, n, one, add);
        }
      }
      for (size_t i = 0; i < products.size(); ++i)
        for (size_t t = 0; t < n; ++t) {
          std::vector<float> a(33), b(33);
          device->download(*together[i], t, a);
          device->download(*alone[i], t, b);
          ASSERT_EQ(std::memcmp(a.data(), b.data(), 33 * sizeof(float)), 0)
              << set->name << " matrix " << i << " token " << t << " of " << n;
        }
    }
  }
}

TEST(CpuDevice, GathersRowsAsTheFormatDecodesThem) {
  for (const DType dtype : test::decodable_formats()) {
    const BlockFormat& format = block_format(dtype);
    const Tensor table = make_tensor(format, {kVocab, kDim}, 1);
    Tensor panels = table;  // views the bytes of its own copy
    panels.view.data = panels.bytes.data();
    if (has_panel_layout(dtype)) turn_into_panels(panels);
    for (const auto& [view, use] : {std::pair(table.view, MatrixUse::kGather),
                                    {table.view, MatrixUse::kBoth},
                                    {panels.view, MatrixUse::kGather},
                                    {panels.view, MatrixUse::kBoth}}) {
      const auto device = make_cpu_device(select_kernel_set(), 2);
      const auto matrix = device->load_matrix(view, use);
      const auto x = device->allocate(3, kDim);
      const std::vector<int32_t> ids = {69, 0, 33};
      device->embed(*matrix, ids, *x);
      for (size_t t = 0; t < ids.size(); ++t) {
        std::vector<float> row(kDim), expected(kDim);
        device->download(*x, t, row);
        format.decode(table.bytes.data() + static_cast<size_t>(ids[t]) * format.row_bytes(kDim),
                      kDim / format.block_weights, expected.data());
        EXPECT_TRUE(same_bits(row, expected)) << format.name;
      }
    }
  }
}

TEST(CpuDevice, AccountsForTheMemoryOfRepackedMatrices) {
  const Tensor table = make_tensor(block_format(DType::Q8_0), {kVocab, kDim}, 1);
  for (const KernelSet* set : test::supported_sets()) {
    const auto device = make_cpu_device(*set, 1);
    const bool wants_panels = set->find_matmul(DType::Q8_0)->layout == TensorLayout::kPanels;
    const uint64_t row_bytes = kDim / 32 * 34;
    for (const bool has_panels : {false, true}) {
      TensorView view = table.view;
      if (has_panels) view.layout = TensorLayout::kPanels;
      uint64_t expected = 0;
      if (wants_panels && has_panels) expected = 16 * row_bytes;   // the last rows' panel
      if (wants_panels && !has_panels) expected = 80 * row_bytes;  // rows rounded up to 16
      if (!wants_panels && has_panels) expected = kVocab * row_bytes;
      for (const MatrixUse use : {MatrixUse::kProduct, MatrixUse::kBoth}) {
        EXPECT_EQ(device->matrix_memory(view, use).allocated, expected) << set->name;
        EXPECT_EQ(device->matrix_memory(view, use).keeps_source, wants_panels == has_panels) << set->name;
      }
      EXPECT_EQ(device->matrix_memory(view, MatrixUse::kGather).allocated, 0u) << set->name;
      EXPECT_TRUE(device->matrix_memory(view, MatrixUse::kGather).keeps_source) << set->name;
    }
    EXPECT_EQ(device->load_matrix(table.view, MatrixUse::kProduct)->bytes(), table.view.n_bytes);
  }
}

TEST(CpuDevice, FallsBackToTheReferenceAndSaysSoOncePerFormat) {
  KernelSet bare = test::reference_set();
  bare.name = "bare";
  bare.n_matmuls = 0;
  std::vector<std::string> lines;
  const auto device = make_cpu_device(bare, 1, [&](std::string_view line) { lines.emplace_back(line); });
  const Tensor q8 = make_tensor(block_format(DType::Q8_0), {16, 32}, 1),
               f32 = make_tensor(block_format(DType::F32), {16, 32}, 1);
  device->load_matrix(q8.view, MatrixUse::kGather);
  EXPECT_TRUE(lines.empty());
  device->load_matrix(q8.view, MatrixUse::kProduct);
  device->load_matrix(q8.view, MatrixUse::kBoth);
  device->load_matrix(f32.view, MatrixUse::kProduct);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0], "Q8_0: no bare kernel yet, using the scalar one (slow)");
  EXPECT_EQ(lines[1], "F32: no bare kernel yet, using the scalar one (slow)");
}

void expect_malformed(const std::function<void()>& call, std::string_view format) {
  try {
    call();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kMalformed);
    EXPECT_NE(std::string_view(error.what()).find("blk.0.odd"), std::string_view::npos) << error.what();
    EXPECT_NE(std::string_view(error.what()).find(format), std::string_view::npos) << error.what();
  }
}

TEST(CpuDevice, RefusesFormatsWithoutAKernelByName) {
  const auto device = make_cpu_device(test::reference_set(), 1);
  TensorView view;
  view.name = "blk.0.odd";
  view.dtype = DType::I32;
  view.shape = {16, 256};
  for (const MatrixUse use : {MatrixUse::kProduct, MatrixUse::kGather, MatrixUse::kBoth}) {
    expect_malformed([&] { device->matrix_memory(view, use); }, "I32");
    expect_malformed([&] { device->load_matrix(view, use); }, "I32");
  }
  view.dtype = DType::Q8_0;
  expect_malformed([&] { device->load_vector(view); }, "Q8_0");
}

TEST(CpuDevice, LoadsVectorsOfAnyFloatFormat) {
  for (const DType dtype : {DType::F32, DType::F16, DType::BF16}) {
    const BlockFormat& format = block_format(dtype);
    const Tensor tensor = make_tensor(format, {19}, 1);
    const auto device = make_cpu_device(test::reference_set(), 1);
    const auto vector = device->load_vector(tensor.view);
    std::vector<float> values(19), expected(19);
    device->download(*vector, 0, values);
    format.decode(tensor.bytes.data(), 19, expected.data());
    EXPECT_TRUE(same_bits(values, expected));
  }
}

TEST(CpuDevice, KeepsTheFirstPlaceOfANanInKOrV) {
  constexpr size_t kRows = 40;  // more than a thread stores at once: later ones are found in other chunks
  for (const int n_threads : {1, 3}) {
    const auto device = make_cpu_device(select_kernel_set(), n_threads);
    const auto cache = device->allocate_kv(test::same_layers(4, kKvHeads, kHeadDim, 64, KvType::kF16)),
               other = device->allocate_kv(test::same_layers(4, kKvHeads, kHeadDim, 64, KvType::kF16));
    std::vector<float> values(kRows * kKvDim, 1.0f);
    for (const size_t t : {8, 6, 9, 20, 37})
      values[t * kKvDim + 77] = std::numeric_limits<float>::quiet_NaN();
    TensorView view;
    view.shape = {kRows, kKvDim};
    view.data = reinterpret_cast<const uint8_t*>(values.data());
    view.n_bytes = values.size() * sizeof(float);
    std::vector<int32_t> ids(kRows);
    std::iota(ids.begin(), ids.end(), 0);
    const auto table = device->load_matrix(view, MatrixUse::kGather);
    const auto good = device->allocate(kRows, kKvDim), q = device->allocate(kRows, kHeads * kHeadDim);
    const auto bad = device->allocate(kRows, kKvDim);
    device->embed(*table, ids, *bad);
    device->embed(*table, std::vector<int32_t>(kRows, 0), *good);
    const auto store = [&](size_t layer, DeviceBuffer& k, DeviceBuffer& v, size_t n) {
      const SequenceRows rows[] = {{cache.get(), 5, 0, 2}, {other.get(), 0, 2, n - 2}};
      device->store_heads(kShape, layer, rows, {}, *q, k, v);
    };
    store(0, *good, *good, kRows);
    EXPECT_EQ(device->take_nan(), std::nullopt);
    store(2, *good, *bad, kRows);
    store(3, *bad, *bad, kRows);
    EXPECT_EQ(device->take_nan(), (NanPlace{2, 6}));
    EXPECT_EQ(device->take_nan(), std::nullopt);
    store(1, *bad, *good, kRows);
    EXPECT_EQ(device->take_nan(), (NanPlace{1, 6}));
    store(1, *bad, *bad, 6);
    EXPECT_EQ(device->take_nan(), std::nullopt);
  }
}

TEST(CpuDevice, AllocationsThatCannotBeMadeAreResourceErrors) {
  const auto device = make_cpu_device(test::reference_set(), 1);
  for (const size_t capacity : {size_t{1} << 40, std::numeric_limits<size_t>::max()}) {
    try {
      device->allocate_kv(test::same_layers(32, 8, 128, capacity, KvType::kF16));
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kResource);
      EXPECT_NE(std::string_view(error.what()).find("KV cache"), std::string_view::npos);
    }
  }
}

TEST(DeviceTimes, CountKeysOnceACallAndPairsPerHead) {
  const AttentionShape shape{.n_heads = 4, .n_kv_heads = 2, .head_dim = 8, .window = 0};
  constexpr uint64_t kKeyBytes = 2 * 2 * 8 * 2;  // K and V of two heads of 8 numbers of f16
  DeviceTimes times;
  times.count_attention(shape, KvType::kF16, 10, 0);
  EXPECT_EQ(times.attention_kv_bytes, 0u);
  times.count_attention(shape, KvType::kF16, 10, 1);
  EXPECT_EQ(times.attention_kv_bytes, 11 * kKeyBytes);
  EXPECT_EQ(times.attention_macs, 11u * 4 * 2 * 8);
  times = {};
  times.count_attention(shape, KvType::kF32, 10, 3);  // 11, 12 and 13 keys
  EXPECT_EQ(times.attention_kv_bytes, 13 * 2 * kKeyBytes);
  EXPECT_EQ(times.attention_macs, 36u * 4 * 2 * 8);
}

TEST(DeviceTimes, CountNoKeyBeforeTheWindow) {
  const AttentionShape shape{.n_heads = 1, .n_kv_heads = 1, .head_dim = 2, .window = 4};
  DeviceTimes times;
  times.count_attention(shape, KvType::kF16, 2, 3);  // keys 0-2, 0-3, 1-4
  EXPECT_EQ(times.attention_kv_bytes, 5u * 2 * 2 * 2);
  EXPECT_EQ(times.attention_macs, (3u + 4 + 4) * 2 * 2);
}

}  // namespace
}  // namespace quern
