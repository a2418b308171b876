#!/usr/bin/env python3
"""A BF16 GGUF that could have been the source of a quantized one: real weights to measure quantization with, where only a
quantized file of a model is at hand.

    bench/unquantized_twin.py QUANTIZED.gguf TWIN.gguf [SEED]

Each value of a Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0 matrix gets uniform noise of up to half a step of its block, so that
quantizing again meets ordinary weights and not its own grid; the rest is copied. Needs the packages gguf and numpy.
"""
import sys

import gguf
import numpy as np

# Bytes of a block of 32; its step is the half-precision number at its start.
BLOCK_BYTES = {gguf.GGMLQuantizationType.Q4_0: 18, gguf.GGMLQuantizationType.Q4_1: 20, gguf.GGMLQuantizationType.Q5_0: 22,
               gguf.GGMLQuantizationType.Q5_1: 24, gguf.GGMLQuantizationType.Q8_0: 34}

source, target = sys.argv[1:3]
random = np.random.default_rng(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
reader = gguf.GGUFReader(source)
writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
for key, field in reader.fields.items():
    if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type", "general.quantization_version"):
        continue
    kind = field.types[0]
    writer.add_key_value(key, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
for tensor in reader.tensors:
    if tensor.tensor_type in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16):
        writer.add_tensor(tensor.name, np.array(tensor.data))
        continue
    size = BLOCK_BYTES[tensor.tensor_type]
    blocks = np.frombuffer(tensor.data.tobytes(), np.uint8).reshape(-1, size)
    steps = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    noise = np.abs(steps) * random.uniform(-0.5, 0.5, (len(blocks), 32)).astype(np.float32)
    values = values + noise.reshape(values.shape)
    packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.BF16)
    writer.add_tensor(tensor.name, packed, raw_dtype=gguf.GGMLQuantizationType.BF16)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
