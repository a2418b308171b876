// A checkpoint folder as the BF16 GGUF that convert would write, without writing it: each tensor is converted
// when it is loaded (quant/tensor_source.h).
#pragma once

#include <memory>
#include <string>

#include "convert/convert_options.h"
#include "quant/tensor_source.h"

namespace quern {

// options: source, no_tokenizer, pre_tokenizer and n_threads count. callbacks: notice,
// recognise_chat_format. Metadata, descriptors and bytes are those of the file that convert() writes with
// type bf16. Throws what convert() throws; a weight that is not finite, when its tensor is loaded.
std::unique_ptr<TensorSource> open_checkpoint_as_bf16(const ConvertOptions& options,
                                                      const ConvertCallbacks& callbacks);
// The same of type f32: what BF16 does not hold is kept.
std::unique_ptr<TensorSource> open_checkpoint_as_f32(const ConvertOptions& options,
                                                     const ConvertCallbacks& callbacks);

}  // namespace quern
