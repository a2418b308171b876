#include "runtime/template/value.h"

#include <fmt/format.h>

#include "runtime/template/interpreter.h"

namespace quern::jinja {

size_t String::n_chars() const {
  if (node_->n_chars == SIZE_MAX) node_->n_chars = count_chars(bytes());
  return node_->n_chars;
}

Value Value::undefined(std::string message) {
  Value value = string(std::move(message), Origin::kTemplate);
  value.kind_ = Kind::kUndefined;
  return value;
}

Value Value::string(const String& value) noexcept {
  Value result(Kind::kString, {.string = value.node_});
  result.retain();
  return result;
}

const std::string& Value::undefined_message() const { return payload_.string->text.string(); }

bool Value::is_same(const Value& other) const {
  if (kind_ != other.kind_) return false;
  switch (kind_) {
    case Kind::kNone:
      return true;
    case Kind::kFloat:
      return payload_.number == other.payload_.number;
    case Kind::kString:  // CPython shares equal constants
      return bytes() == other.bytes();
    default:
      return payload_.integer == other.payload_.integer;
  }
}

const Value* Arguments::keyword(std::string_view name) const {
  for (const auto& [key, value] : keywords)
    if (key.bytes() == name) return &value;
  return nullptr;
}

bool Object::truth() const { return length().value_or(1) != 0; }

Value Object::call(Interpreter& in, Arguments&) { in.raise("'{}' object is not callable", type_name()); }

std::string_view type_name(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      return "Undefined";
    case Value::Kind::kNone:
      return "NoneType";
    case Value::Kind::kBool:
      return "bool";
    case Value::Kind::kInt:
      return "int";
    case Value::Kind::kFloat:
      return "float";
    case Value::Kind::kString:
      return value.is_markup() ? "Markup" : "str";
    case Value::Kind::kObject:
      return value.as_object()->type_name();
  }
  return "";
}

std::string type_description(const Value& value) {
  if (value.is_none()) return "None";
  const Object* object = value.as_object();
  const std::string_view module = object != nullptr   ? object->type_module()
                                  : value.is_markup() ? std::string_view("markupsafe.")
                                                      : std::string_view();
  return fmt::format("{}{} object", module, type_name(value));
}

bool truth(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kUndefined:
    case Value::Kind::kNone:
      return false;
    case Value::Kind::kBool:
    case Value::Kind::kInt:
      return value.as_integer() != 0;
    case Value::Kind::kFloat:
      return value.as_number() != 0;
    case Value::Kind::kString:
      return !value.bytes().empty();
    case Value::Kind::kObject:
      return value.as_object()->truth();
  }
  return false;
}

}  // namespace quern::jinja
