// JSON schemas as grammars: every text that the grammar takes is JSON that the schema takes (drafts 4 to
// 2020-12 where they agree). Not the other way round: texts are written one way (properties in the schema's
// order, at most one space or one indented line between tokens, no escapes where none are needed in keys,
// patterns and formats, integers of at most 18 digits), and an object is closed where the schema does not
// say.
//
// Taken: true, false, type (one or several), enum, const, $ref within the document, anyOf, oneOf where no
// two of its schemas can take the same value (types or constants tell them apart, or a property that both
// require), allOf of one; properties, required, additionalProperties, minProperties and maxProperties where
// they ask for nothing more; items, prefixItems, minItems, maxItems; minLength, maxLength, pattern
// (grammar_regex.h), format; minimum, maximum, exclusiveMinimum, exclusiveMaximum of integers, and of numbers
// where they are integers. Formats: date, time, date-time, uuid, ipv4, ipv6, email, hostname, uri. What only
// annotates is passed over. Everything else is refused by its place and name, for a keyword that was passed
// over would be a promise broken.
#pragma once

#include <string>

#include "quant/json/json.h"
#include "runtime/engine/grammar.h"
#include "runtime/engine/value_notation.h"

namespace quern {

inline constexpr JsonLimits kSchemaLimits = {.max_depth = 64, .max_values = 1u << 17};

// Throws kMalformed "<where>: #/place: keyword ...". The schema is not needed afterwards.
Grammar compile_json_schema(const Json& schema, const std::string& where);

// Likewise, as a rule of a grammar that is being built; may be called several times for one builder.
// The schema lives until then only.
GrammarBuilder::Rule add_json_schema(GrammarBuilder& builder, const Json& schema, const std::string& where);
// Likewise, for a part of a schema, which its references refer to. path: of the part, "#/properties/a".
GrammarBuilder::Rule add_json_schema(GrammarBuilder& builder, const Json& schema, const Json& part,
                                     const std::string& path, const std::string& where);
// Likewise, in a notation of which the schema is an object (value_notation.h). What is refused beyond that:
// names that it cannot write. Without escapes strings are any text up to the quote, but those that are held
// to a pattern or a length do not have the second character of the quote.
GrammarBuilder::Rule add_arguments(GrammarBuilder& builder, const Json& schema, const ValueNotation& notation,
                                   const std::string& where);

}  // namespace quern
