#include "tests/support/json.h"

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <utility>

namespace quern::test {
namespace {

using Library = nlohmann::ordered_json;

Json from_library(const Library& json) {
  switch (json.type()) {
    case Library::value_t::boolean:
      return json.get<bool>();
    case Library::value_t::number_integer:
      return json.get<int64_t>();
    case Library::value_t::number_unsigned:
      return json.get<uint64_t>();
    case Library::value_t::number_float:
      return json.get<double>();
    case Library::value_t::string:
      return json.get<std::string>();
    case Library::value_t::array: {
      Json::Array elements;
      for (const Library& element : json) elements.push_back(from_library(element));
      return elements;
    }
    case Library::value_t::object: {
      Json object = Json::object();
      for (const auto& member : json.items()) object.add(member.key(), from_library(member.value()));
      return object;
    }
    default:
      return {};
  }
}

Library to_library(const Json& json) {
  if (json.is_object()) {
    Library object = Library::object();
    for (const auto& [key, member] : json.members()) object[key] = to_library(member);
    return object;
  }
  return json.visit([](const auto& value) -> Library {
    using T = std::decay_t<decltype(value)>;
    if constexpr (std::same_as<T, Json::Array>) {
      Library array = Library::array();
      for (const Json& element : value) array.push_back(to_library(element));
      return array;
    } else if constexpr (std::same_as<T, std::monostate> || std::same_as<T, Json::Object>) {
      return nullptr;
    } else {
      return value;
    }
  });
}

[[noreturn]] void wrong(const Json& json, const std::string& expected) {
  std::ostringstream found;
  found << json;
  throw std::runtime_error("expected " + expected + ", found " + found.str());
}

// The value as an integer of another type, where it fits.
template <class To>
To integer_of(const Json& json, const auto& value) {
  if (const auto* i = std::get_if<int64_t>(&value); i != nullptr && std::in_range<To>(*i))
    return static_cast<To>(*i);
  if (const auto* u = std::get_if<uint64_t>(&value); u != nullptr && std::in_range<To>(*u))
    return static_cast<To>(*u);
  wrong(json, "an integer that fits");
}

}  // namespace

Json Json::array(std::initializer_list<Json> elements) {
  Json json;
  json.value_ = Array(elements);
  return json;
}

Json Json::object(std::initializer_list<std::pair<const char*, Json>> members) {
  Json json;
  json.value_ = Object(members.begin(), members.end());
  return json;
}

Json Json::parse(std::string_view text) {
  try {
    return from_library(Library::parse(text));
  } catch (const Library::exception& error) {
    throw std::runtime_error("no JSON: " + std::string(error.what()) + ": " + std::string(text));
  }
}

Json Json::read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  return parse(std::string(std::istreambuf_iterator<char>(file), {}));
}

size_t Json::size() const {
  if (const auto* array = std::get_if<Array>(&value_)) return array->size();
  if (const auto* object = std::get_if<Object>(&value_)) return object->size();
  return 0;
}

bool Json::contains(std::string_view key) const {
  if (const auto* object = std::get_if<Object>(&value_))
    for (const auto& [name, member] : *object)
      if (name == key) return true;
  return false;
}

const Json& Json::operator[](std::string_view key) const {
  for (const auto& [name, member] : members())
    if (name == key) return member;
  wrong(*this, "a member called " + std::string(key));
}

const Json& Json::element(size_t index) const {
  if (index < elements().size()) return elements()[index];
  wrong(*this, "an element of index " + std::to_string(index));
}

void Json::add(std::string key, Json value) {
  if (is_null()) value_ = Object();
  auto* object = std::get_if<Object>(&value_);
  if (object == nullptr) wrong(*this, "an object");
  object->emplace_back(std::move(key), std::move(value));
}

const Json::Array& Json::elements() const {
  if (const auto* array = std::get_if<Array>(&value_)) return *array;
  wrong(*this, "an array");
}

const Json::Object& Json::members() const {
  if (const auto* object = std::get_if<Object>(&value_)) return *object;
  wrong(*this, "an object");
}

bool Json::boolean() const {
  if (const auto* value = std::get_if<bool>(&value_)) return *value;
  wrong(*this, "true or false");
}

double Json::number() const {
  if (const auto* i = std::get_if<int64_t>(&value_)) return static_cast<double>(*i);
  if (const auto* u = std::get_if<uint64_t>(&value_)) return static_cast<double>(*u);
  if (const auto* d = std::get_if<double>(&value_)) return *d;
  wrong(*this, "a number");
}

int64_t Json::integer() const { return integer_of<int64_t>(*this, value_); }
uint64_t Json::unsigned_integer() const { return integer_of<uint64_t>(*this, value_); }

const std::string& Json::string() const {
  if (const auto* value = std::get_if<std::string>(&value_)) return *value;
  wrong(*this, "a string");
}

std::string Json::dump() const {
  try {
    return to_library(*this).dump();
  } catch (const Library::exception& error) {
    throw std::runtime_error(error.what());
  }
}

std::partial_ordering operator<=>(const Json& a, const Json& b) {
  const auto* i = std::get_if<int64_t>(&a.value_);
  const auto* j = std::get_if<int64_t>(&b.value_);
  if (i != nullptr && j != nullptr) return *i <=> *j;
  return a.number() <=> b.number();
}

bool operator==(const Json& a, const Json& b) {
  const auto is_number = [](const Json& json) {
    return json.visit([](const auto& value) {
      using T = std::decay_t<decltype(value)>;
      return std::is_arithmetic_v<T> && !std::same_as<T, bool>;
    });
  };
  if (a.value_.index() != b.value_.index() && is_number(a) && is_number(b)) return (a <=> b) == 0;
  return a.value_ == b.value_;
}

std::ostream& operator<<(std::ostream& out, const Json& json) {
  return out << to_library(json).dump(-1, ' ', false, Library::error_handler_t::replace);
}

}  // namespace quern::test
