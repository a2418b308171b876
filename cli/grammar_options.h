// Options that hold an answer to a grammar or a JSON schema.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "cli/arguments.h"
#include "runtime/engine/constraint.h"
#include "runtime/engine/grammar.h"
#include "runtime/model.h"

namespace quern {

// --grammar --json-schema
struct GrammarArguments {
  std::optional<std::string> grammar, json_schema;  // files

  void declare(Arguments& arguments);
  bool given() const { return grammar || json_schema; }
  // The grammar of the file; none: neither was given. Throws kUsage where both were, kIo for what cannot be
  // read, kMalformed "<file>: ..." for what does not compile.
  std::optional<Grammar> read() const;
};

// The same over a model's vocabulary.
std::shared_ptr<const Constraint> constrain(const Model& model, Grammar grammar);

}  // namespace quern
