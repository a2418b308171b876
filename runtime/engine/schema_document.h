// A JSON schema as a document: where its references lead, which types and constants its parts state, and
// whether two of them may take the same value. Nothing of what becomes of it (grammar_schema.h). JSON Schema
// 2020-12; JSON Pointer: RFC 6901.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include "quant/json/json.h"

namespace quern {

// Sets of types of values.
enum TypeBit : unsigned {
  kNullType = 1,
  kBooleanType = 2,
  kIntegerType = 4,  // a part of the numbers
  kNumberType = 8,
  kStringType = 16,
  kArrayType = 32,
  kObjectType = 64,
  kAnyType = 127,
};

// Paths are those of errors, "#/properties/a". All functions throw kMalformed: where, path, keyword and why.
// Not thread-safe.
class SchemaDocument {
 public:
  // Both outlive it. where: what the document is called in errors.
  SchemaDocument(const Json& root, const std::string& where) : root_(root), where_(where) {}

  [[noreturn]] void refuse(const std::string& path, std::string_view keyword, const std::string& why) const;

  // The part of the document that "$ref" names, which begins with #.
  const Json& resolve(const std::string& reference, const std::string& path);
  // The schema that a chain of bare references ends at; the one itself where it is none.
  const Json& target(const Json& schema, const std::string& path);
  // Bits of "type"; all where there is none.
  unsigned stated_types(const Json& schema, const std::string& path) const;
  static unsigned type_of(const Json& value);
  // Types of the values that a schema takes, or more; through references.
  unsigned own_types(const Json& schema, const std::string& path);
  // It is the values of "const" or "enum", and no others.
  static bool is_constant(const Json& schema);
  // These values.
  std::span<const Json> constants(const Json& schema, const std::string& path) const;
  // oneOf: no two of these schemas may take the same value, as far as can be told.
  void require_disjoint(const Json& list, const std::string& path);

 private:
  const Json* member(const Json& object, std::string_view name);
  bool are_disjoint(const Json& first, const Json& second, const std::string& path, int depth);
  std::string percent_decoded(const std::string& text, const std::string& path) const;

  const Json& root_;
  const std::string& where_;
  std::unordered_map<const Json*, std::unordered_map<std::string_view, const Json*>> indices_;
};

}  // namespace quern
