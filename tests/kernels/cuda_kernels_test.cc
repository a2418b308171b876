// Kernels of the GPU, on the emulation (or a GPU: tests/support/test_gpu.h), against the CPU's scalar set:
// the same bits, in every order of threads.
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/cpu_device.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/emulation/emulation.h"
#include "kernels/cuda/gpu.h"
#include "quant/panel_layout.h"
#include "tests/kernels/kv_memory.h"
#include "tests/support/test_gpu.h"
#include "tests/support/weight_blocks.h"

namespace quern {
namespace {

using cuda::emulation::Order;
using test::random_values;
using test::same_bits;
using test::Values;

constexpr uint64_t kMemory = uint64_t{1} << 30;
constexpr Order kOrders[] = {Order::kAscending, Order::kDescending, Order::kRandom};

std::unique_ptr<cuda::CudaDevice> emulated(uint64_t memory = kMemory) {
  return cuda::make_cuda_device(cuda::make_emulated_gpu(memory));
}
std::unique_ptr<cuda::CudaDevice> on_gpu() { return cuda::make_cuda_device(test::make_test_gpu(kMemory)); }
std::unique_ptr<Device> scalar() { return make_cpu_device(test::reference_set(), 1); }

struct Tensor {
  std::vector<uint8_t> bytes;
  TensorView view;
};
Tensor make_tensor(DType dtype, Shape shape, uint32_t seed) {
  Tensor tensor;
  const BlockFormat& format = block_format(dtype);
  tensor.view.name = "weight";
  tensor.view.dtype = dtype;
  tensor.view.shape = std::move(shape);
  tensor.bytes.resize(tensor.view.n_elements() / format.block_weights * format.block_bytes);
  std::mt19937 random(seed);
  test::RandomBlocks(format, 0.1f).fill(random, tensor.bytes);
  tensor.view.data = tensor.bytes.data();
  tensor.view.n_bytes = tensor.bytes.size();
  return tensor;
}
// Any bytes, but for f16 numbers that are no NaN: codes and scales at their bounds, subnormals, infinities.
Tensor make_extreme_tensor(DType dtype, Shape shape, uint32_t seed) {
  Tensor tensor = make_tensor(dtype, std::move(shape), seed);
  const BlockFormat& format = block_format(dtype);
  std::mt19937 random(seed);
  const uint8_t fills[] = {0x00, 0xff, 0x80, 0x7f, 0x88, 0x77};
  const uint16_t scales[] = {0x0000, 0x8000, 0x0001, 0x83ff, 0x7bff, 0xfbff, 0x7c00, 0x7e00, 0x3c00, 0xae66};
  const std::vector<size_t> offsets = test::f16_offsets(format);
  for (size_t at = 0; at < tensor.bytes.size(); at += format.block_bytes) {
    if (format.is_float()) {
      for (size_t i = 0; i < format.block_bytes; ++i) tensor.bytes[at + i] = static_cast<uint8_t>(random());
      continue;
    }
    std::memset(&tensor.bytes[at], fills[random() % std::size(fills)], format.block_bytes);
    for (const size_t offset : offsets)
      std::memcpy(&tensor.bytes[at + offset], &scales[random() % std::size(scales)], sizeof(uint16_t));
  }
  return tensor;
}

std::unique_ptr<DeviceBuffer> buffer_of(Device& device, const std::vector<float>& values, size_t width) {
  auto buffer = device.allocate(values.size() / width, width);
  device.upload(values, *buffer, 0);
  return buffer;
}
std::vector<float> values_of(Device& device, const DeviceBuffer& buffer) {
  std::vector<float> values(buffer.rows() * buffer.width());
  device.download(buffer, 0, values);
  return values;
}

constexpr DType kFormats[] = {DType::Q4_0,  DType::Q4_1, DType::Q5_0,   DType::Q5_1,
                              DType::Q8_0,  DType::Q2_K, DType::Q3_K,   DType::Q4_K,
                              DType::Q5_K,  DType::Q6_K, DType::IQ4_NL, DType::IQ4_XS,
                              DType::MXFP4, DType::F32,  DType::F16,    DType::BF16};

class CudaProducts : public testing::TestWithParam<DType> {
 protected:
  void TearDown() override { cuda::emulation::set_order(Order::kAscending); }

  // y = x * W^T + b, and y + it.
  static std::vector<float> product(Device& device, const Tensor& weight, const std::vector<float>& x,
                                    const std::vector<float>& start, const std::vector<float>& bias,
                                    bool add) {
    const size_t k = weight.view.columns(), rows = weight.view.rows();
    const auto matrix = device.load_matrix(weight.view, MatrixUse::kProduct);
    const auto in = buffer_of(device, x, k), out = buffer_of(device, start, rows),
               b = buffer_of(device, bias, rows);
    const Device::Product products[] = {{matrix.get(), out.get(), b.get()}};
    device.run_pass([&] { device.matmul(*in, x.size() / k, products, add); });
    return values_of(device, *out);
  }
  static void expect_equal(const Tensor& weight, size_t n, Values kind, bool add) {
    const size_t k = weight.view.columns(), rows = weight.view.rows();
    const std::vector<float> x = random_values(n * k, kind, 3),
                             start = random_values(n * rows, Values::kNormal, 4),
                             bias = random_values(rows, Values::kNormal, 5);
    const auto cpu = scalar();
    const auto gpu = on_gpu();
    EXPECT_TRUE(
        same_bits(product(*cpu, weight, x, start, bias, add), product(*gpu, weight, x, start, bias, add)))
        << rows << " x " << k << ", " << n << " tokens, values " << static_cast<int>(kind);
  }
};

// Every number of tokens, across the kernels for few and for many.
TEST_P(CudaProducts, EqualTheScalarSetForAnyNumberOfTokens) {
  const Tensor weight = make_tensor(GetParam(), {36, 512}, 1);
  for (size_t n = 1; n <= 40; ++n) expect_equal(weight, n, Values::kNormal, n % 2 == 0);
  expect_equal(weight, 67, Values::kNormal, false);
  expect_equal(weight, 130, Values::kNormal, true);
}

TEST_P(CudaProducts, EqualItForOddShapes) {
  const size_t block = std::max<size_t>(block_format(GetParam()).block_weights, 32);
  for (const size_t rows : {1, 15, 17, 131, 150})
    for (const size_t blocks : {1, 5, 37}) {
      const Tensor weight = make_tensor(GetParam(), {rows, block * (block == 256 ? blocks % 7 : blocks)}, 2);
      for (const size_t n : {1, 3, 9}) expect_equal(weight, n, Values::kNormal, rows % 2 == 0);
    }
}

TEST_P(CudaProducts, EqualItForExtremeWeightsAndActivations) {
  const Tensor weight = make_extreme_tensor(GetParam(), {33, 256}, 6);
  for (const Values kind : test::kAllValues)
    for (const size_t n : {1, 2, 4, 8, 20}) expect_equal(weight, n, kind, false);
}

TEST_P(CudaProducts, EqualItInAnyOrderOfThreads) {
  const Tensor weight = make_tensor(GetParam(), {40, 1536}, 7);
  for (const Order order : kOrders)
    for (uint32_t seed = 1; seed <= (order == Order::kRandom ? 3u : 1u); ++seed) {
      cuda::emulation::set_order(order, seed);
      for (const size_t n : {1, 7, 21}) expect_equal(weight, n, Values::kNormal, true);
    }
}

TEST_P(CudaProducts, AreMultipliedWithTheMatrixsFactorOnce) {
  Tensor weight = make_tensor(GetParam(), {40, 512}, 10);
  weight.view.factor = 0.37f;
  for (const size_t n : {1, 3, 20}) expect_equal(weight, n, Values::kNormal, n == 3);
}

TEST_P(CudaProducts, GatherRowsAsTheFormatDecodesThem) {
  const Tensor weight = make_extreme_tensor(GetParam(), {35, 512}, 8);
  const std::vector<int32_t> ids = {0, 34, 1, 16, 15, 31, 34};
  const auto decoded = [&](Device& device) {
    const auto matrix = device.load_matrix(weight.view, MatrixUse::kBoth);
    const auto x = device.allocate(ids.size(), 512);
    device.run_pass([&] { device.embed(*matrix, ids, *x); });
    return values_of(device, *x);
  };
  EXPECT_TRUE(same_bits(decoded(*scalar()), decoded(*on_gpu())));
}

TEST_P(CudaProducts, TakePanelsOfAFileAsTheyAre) {
  Tensor weight = make_tensor(GetParam(), {40, 512}, 9);
  const std::vector<float> x = random_values(3 * 512, Values::kNormal, 3), start(3 * 40), bias(40);
  const std::vector<float> expected = product(*on_gpu(), weight, x, start, bias, false);
  const std::vector<uint8_t> rows = weight.bytes;
  const size_t row_bytes = block_format(GetParam()).row_bytes(512);
  for (size_t row = 0; row + kPanelRows <= 40; row += kPanelRows)
    pack_panel(GetParam(), &rows[row * row_bytes], kPanelRows, 512, &weight.bytes[row * row_bytes]);
  weight.view.layout = TensorLayout::kPanels;
  EXPECT_TRUE(same_bits(product(*on_gpu(), weight, x, start, bias, false), expected));
}

std::string format_name(const testing::TestParamInfo<DType>& info) {
  return std::string(block_format(info.param).name);
}
INSTANTIATE_TEST_SUITE_P(Formats, CudaProducts, testing::ValuesIn(kFormats), format_name);

// --- operations on rows ---

class CudaOps : public testing::TestWithParam<Order> {
 protected:
  void SetUp() override { cuda::emulation::set_order(GetParam(), 5); }
  void TearDown() override { cuda::emulation::set_order(Order::kAscending); }

  // Runs body(device, x, y) on both; all of x must be the same afterwards.
  template <class Body>
  static void expect_same(size_t rows, size_t width, Values kind, const Body& body) {
    std::vector<float> results[2];
    for (int i = 0; i < 2; ++i) {
      const std::unique_ptr<Device> device = i == 0 ? scalar() : on_gpu();
      const auto x = buffer_of(*device, random_values(rows * width, kind, 11), width);
      const auto y = buffer_of(*device, random_values(rows * width, Values::kNormal, 12), width);
      device->run_pass([&] { body(*device, *x, *y); });
      results[i] = values_of(*device, *x);
    }
    EXPECT_TRUE(same_bits(results[0], results[1]))
        << rows << " x " << width << ", values " << static_cast<int>(kind);
  }
};

TEST_P(CudaOps, NormsEqualTheScalarSets) {
  for (const Values kind : test::kAllValues)
    for (const size_t width : {1, 15, 16, 100, 4096}) {
      const auto vectors = [&](Device& device) {
        return std::pair{buffer_of(device, random_values(width, Values::kNormal, 1), width),
                         buffer_of(device, random_values(width, Values::kNormal, 2), width)};
      };
      expect_same(3, width, kind, [&](Device& device, DeviceBuffer& x, DeviceBuffer& y) {
        const auto [weight, bias] = vectors(device);
        device.rms_norm(x, 1, 2, *weight, 1e-5f, y, 0);
        device.layer_norm(x, 0, 1, *weight, bias.get(), 1e-5f, y, 2);
        device.layer_norm(x, 0, 3, *weight, nullptr, 1e-6f, x, 0);
        device.add(x, y, 1, 3);
      });
    }
  expect_same(3, 96, Values::kNormal, [&](Device& device, DeviceBuffer& x, DeviceBuffer&) {
    device.layer_norm_heads(x, 3, *buffer_of(device, random_values(96, Values::kNormal, 2), 96), 24, 1e-5f);
    device.norm_heads(x, 2, *buffer_of(device, random_values(32, Values::kNormal, 1), 32), 1e-5f);
  });
}

TEST_P(CudaOps, ElementwiseOperationsEqualTheScalarSets) {
  for (const Values kind : test::kAllValues)
    for (const size_t width : {5, 1030}) {
      for (const Activation a :
           {Activation::kSwiglu, Activation::kGeglu, Activation::kSilu, Activation::kGelu, Activation::kRelu2,
            Activation::kGptOss, Activation::kSigmoid})
        expect_same(2, width, kind, [&](Device& device, DeviceBuffer& x, DeviceBuffer& y) {
          device.activate(a, x, is_gated(a) ? &y : nullptr, 2);
        });
      expect_same(3, width, kind, [&](Device& device, DeviceBuffer& x, DeviceBuffer& y) {
        const auto gate = buffer_of(device, random_values(3, Values::kNormal, 3), 1);
        device.add(x, y, 0.7f, 3);
        device.scale(x, 1.3f, 2);
        device.multiply(x, y, 2);
        device.add_gated(x, y, *gate, 3);
        device.softcap(x, 30, 3);
        device.clamp(x, 1.5f, 2);
        device.copy_columns(y, {1, 5}, 2, 2, x, {3, 5});
      });
    }
}

TEST_P(CudaOps, MatricesOfGroupsEqualTheScalarSets) {
  std::vector<Tensor> weights;
  for (uint32_t i = 0; i < 3; ++i) weights.push_back(make_tensor(DType::Q8_0, {20, 64}, i));
  for (const size_t n : {1, 10}) {
    std::vector<float> results[2];
    for (int i = 0; i < 2; ++i) {
      const std::unique_ptr<Device> device = i == 0 ? scalar() : on_gpu();
      std::vector<std::unique_ptr<DeviceMatrix>> matrices;
      for (const Tensor& weight : weights)
        matrices.push_back(device->load_matrix(weight.view, MatrixUse::kProduct));
      const auto x = buffer_of(*device, random_values(n * 210, Values::kNormal, 1), 210);
      const auto y = buffer_of(*device, random_values(n * 75, Values::kNormal, 2), 75);
      device->run_pass([&] { device->matmul_columns(*x, {4, 70}, matrices, n, *y, {2, 25}); });
      results[i] = values_of(*device, *y);
    }
    EXPECT_TRUE(same_bits(results[0], results[1]));
  }
}

TEST_P(CudaOps, ExpertsEqualTheScalarSets) {
  constexpr size_t kRows = 13, kExperts = 5, kUsed = 2, kDim = 64, kHidden = 48;
  for (const DType dtype : {DType::Q4_0, DType::F16}) {
    std::vector<Tensor> weights;
    for (uint32_t i = 0; i < kExperts; ++i) weights.push_back(make_tensor(dtype, {kHidden, kDim}, i));
    std::vector<float> results[2];
    for (int i = 0; i < 2; ++i) {
      const std::unique_ptr<Device> device = i == 0 ? scalar() : on_gpu();
      std::vector<std::unique_ptr<DeviceMatrix>> matrices;
      for (const Tensor& weight : weights)
        matrices.push_back(device->load_matrix(weight.view, MatrixUse::kProduct));
      const auto x = buffer_of(*device, random_values(kRows * kDim, Values::kNormal, 1), kDim);
      const auto z = buffer_of(*device, random_values(kRows * kExperts, Values::kNormal, 2), kExperts);
      const auto bias =
          buffer_of(*device, random_values(kExperts * kHidden, Values::kNormal, 3), kExperts * kHidden);
      const auto factors = buffer_of(*device, random_values(kExperts, Values::kNormal, 6), kExperts);
      const auto y = device->allocate(kRows * kUsed, kHidden);
      const auto out = buffer_of(*device, random_values(kRows * kHidden, Values::kNormal, 4), kHidden);
      const auto routing = device->allocate_routing(kRows, kExperts, kUsed);
      device->run_pass([&] {
        RouterRule rule;
        rule.normalise = true;
        rule.factors = factors.get();
        device->route(*z, kRows, rule, *routing);
        const Device::ExpertProduct product{matrices, y.get(), bias.get()};
        device->expert_matmul(*x, false, *routing, {&product, 1});
        device->combine_experts(*y, *routing, *out, true);
      });
      results[i] = values_of(*device, *out);
    }
    EXPECT_TRUE(same_bits(results[0], results[1])) << block_format(dtype).name;
  }
}

// --- the cache and attention ---

struct HeadsCase {
  AttentionShape shape;
  KvType kv;
  size_t capacity, kept, rotary_dim;
  std::vector<size_t> passes;  // rows of each, of one sequence; a second one comes along with 2
  bool with_all = false;       // norms of heads, factors of queries, sinks
};

// What comes out of attention in the last pass, and Q behind its steps.
std::vector<float> attend(Device& device, const HeadsCase& c) {
  const size_t q_dim = c.shape.n_heads * c.shape.head_dim, kv_dim = c.shape.n_kv_heads * c.shape.head_dim;
  const KvShape shape{{{}, {c.shape.n_kv_heads, c.shape.head_dim, c.kept}}, c.capacity, c.kv};
  const auto first = device.allocate_kv(shape), second = device.allocate_kv(shape);
  const auto norm = buffer_of(device, random_values(c.shape.head_dim, Values::kNormal, 31), c.shape.head_dim);
  const auto sinks = buffer_of(device, random_values(c.shape.n_heads, Values::kNormal, 32), c.shape.n_heads);
  std::vector<float> result;
  size_t position = 0, other = 0;
  uint32_t seed = 0;
  for (const size_t n : c.passes) {
    const size_t rows = n + 2;
    const auto q = buffer_of(device, random_values(rows * q_dim, Values::kNormal, ++seed), q_dim);
    const auto k = buffer_of(device, random_values(rows * kv_dim, Values::kNormal, ++seed), kv_dim);
    const auto v = buffer_of(device, random_values(rows * kv_dim, Values::kNormal, ++seed), kv_dim);
    const auto out = device.allocate(rows, q_dim);
    const auto factor = buffer_of(device, random_values(rows, Values::kNormal, ++seed), 1);
    std::unique_ptr<DeviceBuffer> rope;
    if (c.rotary_dim != 0)
      rope = buffer_of(device, random_values(rows * c.rotary_dim, Values::kNormal, ++seed), c.rotary_dim);
    HeadSteps steps;
    steps.rope = rope.get();
    steps.eps = 1e-5f;
    if (c.with_all) {
      steps.q_norm = steps.k_norm = norm.get();
      steps.pairs = RopePairs::kHalves;
      steps.q_scale = factor.get();
      steps.normalise_v = true;
    }
    const SequenceRows sequences[] = {{first.get(), position, 0, n}, {second.get(), other, n, 2}};
    device.run_pass([&] {
      device.store_heads(c.shape, 1, sequences, steps, *q, *k, *v);
      device.attention(c.shape, 1, sequences, *q, *out, c.with_all ? sinks.get() : nullptr);
    });
    EXPECT_EQ(device.take_nan(), std::nullopt);
    position += n;
    other += 2;
    result = values_of(device, *out);
    const std::vector<float> queries = values_of(device, *q);
    result.insert(result.end(), queries.begin(), queries.end());
  }
  return result;
}

TEST_P(CudaOps, AttentionEqualsTheScalarSets) {
  const AttentionShape plain{4, 2, 64}, small{2, 1, 32}, odd{3, 1, 40}, many{6, 1, 96}, one{1, 1, 20};
  AttentionShape window = small, capped = plain, narrow{2, 2, 32};
  window.window = 70;
  capped.softcap = 20;
  capped.scale = 0.3;
  narrow.window = 3;
  for (const KvType kv : test::kKvTypes) {
    const std::vector<HeadsCase> cases = {
        {plain, kv, 300, 0, 64, {1, 66, 3}},
        {small, kv, 1200, 0, 32, {520, 1, 9}},  // two segments, alone and in one block
        {window, kv, 1200, 600, 32, {500, 500, 1, 20}, true},
        {capped, kv, 130, 0, 64, {100, 1}, true},
        {many, kv, 100, 0, 0, {30, 5}},
        {narrow, kv, 90, 0, 16, {64, 1, 20}, true},
    };
    for (const HeadsCase& c : cases)
      EXPECT_TRUE(same_bits(attend(*scalar(), c), attend(*on_gpu(), c)))
          << test::kv_name(kv) << ", case " << &c - cases.data();
    if (kv == KvType::kQ8_0) continue;
    for (const HeadsCase& c :
         {HeadsCase{odd, kv, 100, 0, 10, {10, 1, 70}}, HeadsCase{one, kv, 70, 0, 20, {65, 1}}})
      EXPECT_TRUE(same_bits(attend(*scalar(), c), attend(*on_gpu(), c))) << test::kv_name(kv);
  }
}

TEST_P(CudaOps, LargeHeadsEqualTheScalarSets) {
  for (const size_t head_dim : {256, 320, 1024}) {
    const HeadsCase c{{2, 1, head_dim}, KvType::kF16, 80, 0, 64, {66, 1}};
    EXPECT_TRUE(same_bits(attend(*scalar(), c), attend(*on_gpu(), c))) << head_dim;
  }
}

INSTANTIATE_TEST_SUITE_P(Orders, CudaOps, testing::ValuesIn(kOrders),
                         [](const testing::TestParamInfo<Order>& order) {
                           return order.param == Order::kAscending    ? "Ascending"
                                  : order.param == Order::kDescending ? "Descending"
                                                                      : "Random";
                         });

TEST(CudaDevice, KeepsTheFirstPlaceOfANanInKOrV) {
  const auto device = on_gpu();
  const AttentionShape shape{1, 1, 32};
  const auto cache = device->allocate_kv(test::same_layers(3, 1, 32, 64, KvType::kF16));
  std::vector<float> values(5 * 32, 1.0f);
  const auto q = buffer_of(*device, values, 32), good = buffer_of(*device, values, 32);
  values[3 * 32 + 7] = values[4 * 32] = NAN;
  const auto bad = buffer_of(*device, values, 32);
  const SequenceRows rows[] = {{cache.get(), 0, 0, 5}};
  device->run_pass([&] {
    device->store_heads(shape, 2, rows, {}, *q, *bad, *good);
    device->store_heads(shape, 1, rows, {}, *q, *good, *bad);
  });
  EXPECT_EQ(device->take_nan(), (NanPlace{1, 3}));
  EXPECT_EQ(device->take_nan(), std::nullopt);
}

// A step of launches with another position each time, as often as it becomes a graph and is launched as one;
// and what must not be taken for the step before.
TEST(CudaDevice, LaunchesThatComeAgainAreAGraphWithTheSameBits) {
  const AttentionShape shape{2, 1, 32};
  const auto life = [&](Device& device) {
    const auto first = device.allocate_kv(test::same_layers(1, 1, 32, 700, KvType::kF16));
    const auto second = device.allocate_kv(test::same_layers(1, 1, 32, 700, KvType::kF16));
    const auto x = device.allocate(2, 32), q = device.allocate(2, 64), out = device.allocate(2, 64),
               more = device.allocate(2, 64);
    std::vector<float> results;
    const auto step = [&](std::vector<SequenceRows> rows, uint32_t seed, float factor, bool forgets) {
      const size_t n = rows.size();
      std::vector<float> result(n * 64);
      device.run_pass([&] {
        device.upload(random_values(n * 32, Values::kNormal, seed), *x, 0);
        device.upload(random_values(n * 64, Values::kNormal, seed + 1), *q, 0);
        for (int i = 0; i < 5; ++i) device.scale(*x, 0.9f, n);
        device.store_heads(shape, 0, rows, {}, *q, *x, *x);
        device.attention(shape, 0, rows, *q, *out, nullptr);
        if (forgets) {  // memory that goes while launches that use it wait
          const auto some = buffer_of(device, random_values(n * 64, Values::kNormal, 7), 64);
          device.add(*out, *some, 1, n);
        }
        device.scale(*out, factor, n);
        // The same pass at other positions: they are sent behind the launches that read the first ones.
        for (SequenceRows& row : rows) ++row.position;
        device.store_heads(shape, 0, rows, {}, *q, *x, *x);
        device.attention(shape, 0, rows, *q, *more, nullptr);
        device.add(*out, *more, 1, n);
      });
      device.download(*out, 0, result);
      results.insert(results.end(), result.begin(), result.end());
    };
    for (size_t i = 0; i < 6; ++i) step({{first.get(), i, 0, 1}}, static_cast<uint32_t>(i), 2, i == 4);
    for (size_t i = 6; i < 9; ++i) step({{first.get(), i, 0, 1}}, static_cast<uint32_t>(i), 3, false);
    for (size_t i = 0; i < 4; ++i)
      step({{second.get(), i, 0, 1}, {first.get(), 9 + i, 1, 1}}, static_cast<uint32_t>(i), 3, false);
    for (size_t i = 13; i < 16; ++i) step({{first.get(), i, 0, 1}}, static_cast<uint32_t>(i), 3, false);
    return results;
  };
  const std::vector<float> expected = life(*scalar());
  const cuda::GraphCounts before = cuda::graph_counts();
  EXPECT_TRUE(same_bits(life(*emulated()), expected));
  EXPECT_GT(cuda::graph_counts().made, before.made);
  EXPECT_GT(cuda::graph_counts().launched - before.launched, 5);
}

// What a pass that failed has asked for is not launched later.
TEST(CudaDevice, APassThatThrowsLeavesNoLaunches) {
  const auto device = emulated();
  const auto x = buffer_of(*device, {1, 2, 3, 4}, 4);
  EXPECT_THROW(device->run_pass([&] {
    device->scale(*x, 2, 1);
    fail(ErrorCode::kResource, "no more");
  }),
               Error);
  EXPECT_EQ(values_of(*device, *x), (std::vector<float>{1, 2, 3, 4}));
  device->run_pass([&] { device->scale(*x, 3, 1); });
  EXPECT_EQ(values_of(*device, *x), (std::vector<float>{3, 6, 9, 12}));
}

TEST(CudaDevice, RefusesByNameWhatItHasNoKernelsFor) {
  const auto device = emulated();
  const Tensor tensor = make_tensor(DType::IQ1_S, {16, 256}, 1);
  EXPECT_FALSE(device->can_multiply(DType::IQ1_S));
  try {
    (void)device->load_matrix(tensor.view, MatrixUse::kProduct);
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kMalformed);
    EXPECT_STREQ(error.what(), "tensor 'weight': no GPU kernel for its format IQ1_S");
  }
}

TEST(CudaDevice, TakesWhatItSaysItTakesAndNoMore) {
  const auto device = emulated();
  const uint64_t before = device->free_memory();
  const Tensor tensor = make_tensor(DType::Q4_K, {50, 512}, 1);
  {
    const auto matrix = device->load_matrix(tensor.view, MatrixUse::kProduct);
    const auto buffer = device->allocate(7, 100);
    const KvShape shape = test::same_layers(2, 2, 64, 700, KvType::kQ8_0);
    const auto cache = device->allocate_kv(shape);
    EXPECT_EQ(before - device->free_memory(),
              device->matrix_memory(tensor.view, MatrixUse::kProduct).allocated +
                  device->buffer_bytes(7, 100) + device->kv_bytes(shape));
    EXPECT_EQ(device->kv_bytes(shape), shape.bytes());
  }
  EXPECT_EQ(device->free_memory(), before);
  const AttentionShape attention[] = {{8, 2, 64}};
  device->reserve_scratch(40, 512, attention, 2000);
  const uint64_t reserved = before - device->free_memory();
  EXPECT_EQ(reserved, device->scratch_bytes(40, 512, attention, 2000));
}

TEST(CudaDevice, SaysWhatHasNoRoom) {
  const auto device = emulated(1000);
  try {
    (void)device->allocate(10, 100);
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResource);
    EXPECT_NE(std::string(error.what()).find("not enough memory on the GPU"), std::string::npos)
        << error.what();
  }
}

// --- the emulation shows what a kernel does wrong ---

TEST(EmulationDeathTest, ThreadsThatMissABarrierAreNamed) {
  const auto kernel = [](const void*) {
    if (cuda::thread() != 3) cuda::sync_block();
  };
  EXPECT_DEATH(cuda::emulation::run(kernel, nullptr, {}, 64, 0), "not all threads come to a barrier");
}

TEST(EmulationDeathTest, LanesThatExchangeDifferentThingsAreNamed) {
  const auto kernel = [](const void*) {
    if (cuda::lane() < 16)
      (void)cuda::warp_sum(1);
    else
      (void)cuda::warp_largest(1);
  };
  EXPECT_DEATH(cuda::emulation::run(kernel, nullptr, {}, 32, 0),
               "lanes of a warp come to different exchanges");
}

TEST(EmulationDeathTest, ALoadOffItsAlignmentIsNamed) {
  const auto kernel = [](const void*) { (void)cuda::load<uint32_t>(cuda::shared() + 2); };
  EXPECT_DEATH(cuda::emulation::run(kernel, nullptr, {}, 32, 64), "a load off its alignment");
}

TEST(EmulationDeathTest, CopiesThatNobodyAwaitsAreNamed) {
  alignas(16) static const uint8_t source[16] = {};
  const auto kernel = [](const void*) {
    cuda::copy_async(cuda::shared() + 16 * cuda::thread(), source);
    cuda::commit_copies();
  };
  EXPECT_DEATH(cuda::emulation::run(kernel, nullptr, {}, 32, 1024), "ends before its copies have arrived");
}

// A reversal through shared memory, with or without its barrier.
template <bool kWithBarrier>
void reverse(const void* args) {
  int* const values = *static_cast<int* const*>(args);
  int* const shared = reinterpret_cast<int*>(cuda::shared());
  shared[cuda::thread()] = values[cuda::thread()];
  if (kWithBarrier) cuda::sync_block();
  values[cuda::thread()] = shared[63 - cuda::thread()];
}

TEST(Emulation, AMissingBarrierGivesOtherValues) {
  const auto reversed = [](auto kernel, Order order) {
    cuda::emulation::set_order(order);
    std::vector<int> values(64);
    for (int i = 0; i < 64; ++i) values[static_cast<size_t>(i)] = i;
    int* const p = values.data();
    cuda::emulation::run(kernel, &p, {}, 64, 256);
    cuda::emulation::set_order(Order::kAscending);
    return values;
  };
  const std::vector<int> expected = reversed(reverse<true>, Order::kAscending);
  EXPECT_EQ(expected.front(), 63);
  for (const Order order : kOrders) {
    EXPECT_EQ(reversed(reverse<true>, order), expected);
    EXPECT_NE(reversed(reverse<false>, order), expected);
  }
}

}  // namespace
}  // namespace quern
