// GGUF files made from others.
#pragma once

#include <functional>
#include <string>

#include "quant/gguf.h"
#include "quant/vocabulary.h"

namespace quern::test {

// Writes the GGUF file `from` to `to`, its metadata changed, its tensors as they are.
void rewrite_gguf(const std::string& from, const std::string& to,
                  const std::function<void(GgufMetadata*)>& change);
// The same, the metadata as it is, with one more tensor, of one float.
void add_float_to_gguf(const std::string& from, const std::string& to, const std::string& name, float value);
// The same with a changed vocabulary of as many tokens.
void rewrite_vocabulary(const std::string& from, const std::string& to,
                        const std::function<void(Vocabulary*)>& change);

}  // namespace quern::test
