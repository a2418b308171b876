#include "runtime/engine/schema_document.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "quant/error.h"
#include "quant/json/json_writer.h"
#include "runtime/engine/grammar_json.h"

namespace quern {
namespace {

constexpr size_t kMaxOneOf = 128;
constexpr int kMaxHops = 32;  // of references to references
constexpr size_t kIndexedMembers = 16;

struct TypeName {
  std::string_view name;
  unsigned bits;  // whose values it takes
};
constexpr TypeName kTypeNames[] = {{"null", kNullType},       {"boolean", kBooleanType},
                                   {"integer", kIntegerType}, {"number", kNumberType | kIntegerType},
                                   {"string", kStringType},   {"array", kArrayType},
                                   {"object", kObjectType}};

std::string unescaped(std::string token) {
  std::string out;
  for (size_t i = 0; i < token.size(); ++i) {
    const bool is_escape = token[i] == '~' && i + 1 < token.size();
    if (is_escape && token[i + 1] == '0')
      out += '~', ++i;
    else if (is_escape && token[i + 1] == '1')
      out += '/', ++i;
    else
      out += token[i];
  }
  return out;
}

// Equal for values that JSON schema calls equal, as 1 and 1.0.
std::string comparable(const Json& value) {
  const std::optional<double> x = value.as_number();
  return x ? json_number(*x) : compact_json(value);
}

bool requires_member(const Json& schema, std::string_view name) {
  const Json* list = schema.find("required");
  if (list == nullptr || list->as_array() == nullptr) return false;
  return std::any_of(list->as_array()->begin(), list->as_array()->end(),
                     [&](const Json& one) { return one.as_string() != nullptr && *one.as_string() == name; });
}

}  // namespace

void SchemaDocument::refuse(const std::string& path, std::string_view keyword, const std::string& why) const {
  fail(ErrorCode::kMalformed, "{}: {}: {}: {}", where_, printable(path, 200), keyword, why);
}

// As Json::find; objects of many members are gone through once.
const Json* SchemaDocument::member(const Json& object, std::string_view name) {
  if (object.as_object() == nullptr || object.size() <= kIndexedMembers) return object.find(name);
  auto& index = indices_[&object];
  if (index.empty())
    for (const JsonMember& one : *object.as_object()) index.emplace(one.key, &one.value);
  const auto found = index.find(name);
  return found == index.end() ? nullptr : found->second;
}

const Json& SchemaDocument::resolve(const std::string& reference, const std::string& path) {
  if (!reference.starts_with("#"))
    refuse(
        path, "$ref",
        fmt::format("'{}' is not in this document; expected one that begins with #", printable(reference)));
  const std::string pointer = percent_decoded(reference.substr(1), path);
  if (!pointer.empty() && pointer[0] != '/')
    refuse(path, "$ref", fmt::format("'{}' is a name; expected a path (#/...)", printable(reference)));
  const Json* at = &root_;
  for (size_t begin = 1; begin <= pointer.size();) {
    const size_t end = std::min(pointer.find('/', begin), pointer.size());
    const std::string token = unescaped(pointer.substr(begin, end - begin));
    const Json* next = nullptr;
    if (at->as_array() != nullptr) {
      const bool is_number =
          !token.empty() && token.size() < 7 &&
          std::all_of(token.begin(), token.end(), [](char c) { return c >= '0' && c <= '9'; });
      const size_t index = is_number ? static_cast<size_t>(std::stoul(token)) : at->size();
      if (index < at->size()) next = &(*at->as_array())[index];
    } else {
      next = member(*at, token);
    }
    if (next == nullptr) refuse(path, "$ref", fmt::format("there is no '{}'", printable(reference)));
    at = next;
    begin = end + 1;
  }
  return *at;
}

std::string SchemaDocument::percent_decoded(const std::string& text, const std::string& path) const {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const std::string digits = text.substr(i + 1, 2);
    if (digits.size() != 2 || digits.find_first_not_of("0123456789abcdefABCDEF") != digits.npos)
      refuse(path, "$ref", fmt::format("'{}' has a % without two digits", printable(text)));
    out += static_cast<char>(std::stoi(digits, nullptr, 16));
    i += 2;
  }
  return out;
}

const Json& SchemaDocument::target(const Json& schema, const std::string& path) {
  const Json* at = &schema;
  for (int hop = 0; hop < kMaxHops; ++hop) {
    const Json* reference = at->find("$ref");
    if (reference == nullptr || reference->as_string() == nullptr) break;
    at = &resolve(*reference->as_string(), path);
  }
  return *at;
}

unsigned SchemaDocument::stated_types(const Json& schema, const std::string& path) const {
  const Json* type = schema.find("type");
  if (type == nullptr) return kAnyType;
  const std::span<const Json> names =
      type->as_array() == nullptr ? std::span(type, 1) : std::span(*type->as_array());
  unsigned types = 0;
  for (const Json& name : names) {
    const auto* known = std::find_if(std::begin(kTypeNames), std::end(kTypeNames), [&](const TypeName& one) {
      return name.as_string() != nullptr && one.name == *name.as_string();
    });
    if (known == std::end(kTypeNames)) refuse(path, "type", fmt::format("{} is no type", name.describe()));
    types |= known->bits;
  }
  if (types == 0) refuse(path, "type", "there is none");
  return types;
}

unsigned SchemaDocument::type_of(const Json& value) {
  if (value.is_null()) return kNullType;
  if (value.as_bool() != nullptr) return kBooleanType;
  if (value.as_string() != nullptr) return kStringType;
  if (value.as_array() != nullptr) return kArrayType;
  if (value.as_object() != nullptr) return kObjectType;
  const double x = value.as_number().value_or(0.5);
  return x == std::trunc(x) ? kIntegerType : kNumberType;
}

unsigned SchemaDocument::own_types(const Json& schema, const std::string& path) {
  const Json& at = target(schema, path);
  if (at.as_object() == nullptr) return kAnyType;
  if (is_constant(at)) {
    unsigned types = 0;
    for (const Json& one : constants(at, path)) types |= type_of(one);
    return types & stated_types(at, path);
  }
  return stated_types(at, path);
}

bool SchemaDocument::is_constant(const Json& schema) {
  return schema.find("const") != nullptr || schema.find("enum") != nullptr;
}

std::span<const Json> SchemaDocument::constants(const Json& schema, const std::string& path) const {
  if (const Json* one = schema.find("const")) return {one, 1};
  const Json* list = schema.find("enum");
  if (list == nullptr || list->as_array() == nullptr || list->size() == 0)
    refuse(path, "enum", "expected a list of values");
  return *list->as_array();
}

void SchemaDocument::require_disjoint(const Json& list, const std::string& path) {
  if (list.size() > kMaxOneOf) refuse(path, "oneOf", fmt::format("more than {} schemas", kMaxOneOf));
  for (size_t i = 0; i < list.size(); ++i)
    for (size_t k = 0; k < i; ++k)
      if (!are_disjoint(list[k], list[i], path, 0))
        refuse(
            path, "oneOf",
            fmt::format("its schemas {} and {} may take the same value, which oneOf refuses; use anyOf, or "
                        "constants of a required property that tell them apart",
                        k, i));
}

bool SchemaDocument::are_disjoint(const Json& first, const Json& second, const std::string& path, int depth) {
  const Json &a = target(first, path), &b = target(second, path);
  if (&a == &b || a.as_object() == nullptr || b.as_object() == nullptr) return false;
  if ((own_types(a, path) & own_types(b, path)) == 0) return true;
  if (is_constant(a) && is_constant(b)) {
    std::set<std::string> texts;
    for (const Json& one : constants(a, path)) texts.insert(comparable(one));
    for (const Json& one : constants(b, path))
      if (texts.contains(comparable(one))) return false;
    return true;
  }
  if (depth > 0 || own_types(a, path) != kObjectType || own_types(b, path) != kObjectType) return false;
  const Json *properties = a.find("properties"), *others = b.find("properties");
  if (properties == nullptr || others == nullptr || properties->as_object() == nullptr) return false;
  for (const JsonMember& property : *properties->as_object()) {
    const Json* other = member(*others, property.key);
    if (other != nullptr && requires_member(a, property.key) && requires_member(b, property.key) &&
        are_disjoint(property.value, *other, path, depth + 1))
      return true;
  }
  return false;
}

}  // namespace quern
