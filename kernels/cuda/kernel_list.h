// Every kernel of the GPU, once: its name, what it is given, threads of a block at most, and the function of
// the vocabulary that it is. kernels.cu makes CUDA kernels of this list, emulated_gpu.cc calls the same
// functions, cuda_device.cc launches them by name.
#pragma once

#include <cstdint>

#include "kernels/cuda/kernel_args.h"

// Of a quantized format, in the order of QuantizedKernels.
#define QUERN_CUDA_QUANTIZED(X, name, Format)                          \
  X(few_1_##name, ProductArgs, kFewThreads, (multiply_few<Format, 1>)) \
  X(few_2_##name, ProductArgs, kFewThreads, (multiply_few<Format, 2>)) \
  X(few_4_##name, ProductArgs, kFewThreads, (multiply_few<Format, 4>)) \
  X(few_8_##name, ProductArgs, kFewThreads, (multiply_few<Format, 8>)) \
  X(many_##name, ProductArgs, kManyThreads, (multiply_many<Format>))   \
  X(gather_##name, GatherArgs, kRowThreads, (gather<Format>))

// Of a float format.
#define QUERN_CUDA_FLOAT(X, name, Format)                                     \
  X(float_1_##name, ProductArgs, kFloatThreads, (multiply_floats<Format, 1>)) \
  X(float_8_##name, ProductArgs, kFloatThreads, (multiply_floats<Format, 8>)) \
  X(gather_##name, GatherArgs, kRowThreads, (gather_floats<Format>))

#define QUERN_CUDA_KERNELS(X)                                   \
  X(quantize, QuantizeArgs, kRowThreads, quantize)              \
  QUERN_CUDA_QUANTIZED(X, q4_0, Q4_0Format)                     \
  QUERN_CUDA_QUANTIZED(X, q4_1, Q4_1Format)                     \
  QUERN_CUDA_QUANTIZED(X, q5_0, Q5_0Format)                     \
  QUERN_CUDA_QUANTIZED(X, q5_1, Q5_1Format)                     \
  QUERN_CUDA_QUANTIZED(X, q8_0, Q8_0Format)                     \
  QUERN_CUDA_QUANTIZED(X, q2_k, Q2_KFormat)                     \
  QUERN_CUDA_QUANTIZED(X, q3_k, Q3_KFormat)                     \
  QUERN_CUDA_QUANTIZED(X, q4_k, Q4_KFormat)                     \
  QUERN_CUDA_QUANTIZED(X, q5_k, Q5_KFormat)                     \
  QUERN_CUDA_QUANTIZED(X, q6_k, Q6_KFormat)                     \
  QUERN_CUDA_QUANTIZED(X, iq4_nl, IQ4_NLFormat)                 \
  QUERN_CUDA_QUANTIZED(X, iq4_xs, IQ4_XSFormat)                 \
  QUERN_CUDA_QUANTIZED(X, mxfp4, MXFP4Format)                   \
  QUERN_CUDA_FLOAT(X, f32, F32Format)                           \
  QUERN_CUDA_FLOAT(X, f16, F16Format)                           \
  QUERN_CUDA_FLOAT(X, bf16, BF16Format)                         \
  X(rms_norm, NormArgs, kRowThreads, rms_norm)                  \
  X(layer_norm, NormArgs, kRowThreads, layer_norm)              \
  X(activate, ValuesArgs, kRowThreads, activate)                \
  X(add_values, ValuesArgs, kRowThreads, add_values)            \
  X(scale_values, ValuesArgs, kRowThreads, scale_values)        \
  X(multiply_values, ValuesArgs, kRowThreads, multiply_values)  \
  X(add_gated, ValuesArgs, kRowThreads, add_gated)              \
  X(clamp_values, ValuesArgs, kRowThreads, clamp_values)        \
  X(softcap_values, ValuesArgs, kRowThreads, softcap_values)    \
  X(copy_columns, CopyColumnsArgs, kRowThreads, copy_columns)   \
  X(combine_experts, CombineArgs, kRowThreads, combine_experts) \
  X(store_heads, StoreHeadsArgs, kRowThreads, store_heads)      \
  X(attend_f16, AttendArgs, kRowThreads, (attend<KvF16>))       \
  X(attend_f32, AttendArgs, kRowThreads, (attend<KvF32>))       \
  X(attend_q8_0, AttendArgs, kRowThreads, (attend<KvQ8_0>))     \
  X(merge_parts, AttendArgs, kRowThreads, merge_parts)          \
  X(sum_f16, SumArgs, 32, sum_f16)

namespace quern::cuda {

enum class Kernel : uint16_t {
#define QUERN_CUDA_NAME(name, Args, threads, function) name,
  QUERN_CUDA_KERNELS(QUERN_CUDA_NAME)
#undef QUERN_CUDA_NAME
      kCount
};
inline constexpr size_t kKernels = static_cast<size_t>(Kernel::kCount);

// As the entries of the compiled code are called, and bytes of what each is given.
struct KernelEntry {
  const char* name;
  size_t args_bytes;
};
inline constexpr KernelEntry kKernelEntries[] = {
#define QUERN_CUDA_ROW(name, Args, threads, function) {"quern_" #name, sizeof(Args)},
    QUERN_CUDA_KERNELS(QUERN_CUDA_ROW)
#undef QUERN_CUDA_ROW
};

}  // namespace quern::cuda
