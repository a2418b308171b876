#include "cli/serve/request_fields.h"

#include <fmt/format.h>

#include <cmath>

namespace quern {
namespace {

[[noreturn]] void refuse_value(const std::string& param, std::string_view expected, const Json& found) {
  refuse(param, fmt::format("{}: expected {}, found {}", param, expected, found.describe()));
}

const Json::Object& members_of(const Json& body, const std::string& param) {
  if (body.as_object() == nullptr)
    refuse(param, fmt::format("{}: expected an object, found {}", param.empty() ? "the request" : param,
                              body.describe()));
  return *body.as_object();
}

}  // namespace

int status_of_error(ErrorCode code) {
  return code == ErrorCode::kUsage ? 400 : code == ErrorCode::kResource ? 503 : 500;
}

Json parse_request(std::string_view body) {
  constexpr JsonLimits kLimits = {.max_depth = 64, .max_values = 1u << 18};
  try {
    return parse_json(body, "the request", kLimits);
  } catch (const Error& error) {
    throw ApiError(400, kInvalidRequest, error.what());
  }
}

void refuse(const std::string& param, const std::string& message) {
  throw ApiError(400, kInvalidRequest, message, param);
}

void refuse_word(const std::string& param, std::string_view expected, std::string_view found) {
  refuse(param, fmt::format("{}: expected {}, found \"{}\"", param, expected, printable(found)));
}

RequestFields::RequestFields(const Json& body, std::string param)
    : members_(members_of(body, param)), param_(std::move(param)) {}

const Json* RequestFields::find(std::string_view name) {
  known_.emplace(name);
  for (const JsonMember& member : members_)
    if (member.key == name) return member.value.is_null() ? nullptr : &member.value;
  return nullptr;
}

const Json& RequestFields::required(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr) refuse(param(name), fmt::format("{} is missing", param(name)));
  return *value;
}

bool RequestFields::boolean(std::string_view name, bool otherwise) {
  const Json* value = find(name);
  if (value == nullptr) return otherwise;
  if (value->as_bool() == nullptr) refuse_value(param(name), "true or false", *value);
  return *value->as_bool();
}

std::optional<int64_t> RequestFields::integer(std::string_view name, int64_t min, int64_t max) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  std::optional<int64_t> n = value->as_int();
  // 5.0 is a whole number as well.
  constexpr double kExact = 1e15;
  const std::optional<double> x = value->as_number();
  if (!n && x && std::abs(*x) < kExact && *x == std::trunc(*x)) n = static_cast<int64_t>(*x);
  if (!n || *n < min || *n > max)
    refuse_value(param(name), fmt::format("a whole number from {} to {}", min, max), *value);
  return n;
}

std::optional<double> RequestFields::number(std::string_view name, double min, double max) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  const std::optional<double> x = value->as_number();
  if (!x || !(*x >= min && *x <= max))
    refuse_value(param(name), fmt::format("a number from {} to {}", min, max), *value);
  return x;
}

std::optional<std::string> RequestFields::text(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (value->as_string() == nullptr) refuse_value(param(name), "a string", *value);
  return *value->as_string();
}

std::string RequestFields::required_text(std::string_view name) {
  (void)required(name);
  return *text(name);
}

const Json::Array& RequestFields::required_list(std::string_view name) {
  const Json& value = required(name);
  if (value.as_array() == nullptr || value.size() == 0)
    refuse_value(param(name), "a list that is not empty", value);
  return *value.as_array();
}

std::string RequestFields::param(std::string_view name) const {
  return param_.empty() ? std::string(name) : fmt::format("{}.{}", param_, name);
}

std::vector<std::string> RequestFields::unknown() const {
  std::vector<std::string> names;
  for (const JsonMember& member : members_)
    if (!known_.contains(member.key)) names.push_back(member.key);
  return names;
}

}  // namespace quern
