// The members of a request's JSON object, read one by one and checked.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "quant/error.h"
#include "quant/json/json.h"

namespace quern {

// What a client has done wrong, or cannot have: an answer with this status.
class ApiError : public std::runtime_error {
 public:
  // param: the field, as "messages[2].content"; empty: none.
  ApiError(int status, std::string_view type, const std::string& message, std::string param = {},
           std::string code = {})
      : std::runtime_error(message),
        status_(status),
        type_(type),
        param_(std::move(param)),
        code_(std::move(code)) {}

  int status() const { return status_; }
  const std::string& type() const { return type_; }
  const std::string& param() const { return param_; }
  const std::string& code() const { return code_; }

 private:
  int status_;
  std::string type_, param_, code_;
};

inline constexpr std::string_view kInvalidRequest = "invalid_request_error";

// What a client is told of an error of ours.
int status_of_error(ErrorCode code);

// The body of a request. Throws ApiError 400 for what is no JSON, for more than 64 levels or 262,144 values.
Json parse_request(std::string_view body);

// A 400 about the field `param`.
[[noreturn]] void refuse(const std::string& param, const std::string& message);
// The same where it is none of the words that may stand there: "`param`: expected `expected`, found ...".
[[noreturn]] void refuse_word(const std::string& param, std::string_view expected, std::string_view found);

// A member that is null counts as one that is absent. All functions throw ApiError (400, the member's name)
// for a value of another type or out of its range.
class RequestFields {
 public:
  // `body` outlives it. param: what the object is called in errors, "" for the request itself.
  explicit RequestFields(const Json& body, std::string param = {});

  // The member, which is known from now on; null: absent.
  const Json* find(std::string_view name);
  // The same for a member that has to be there.
  const Json& required(std::string_view name);
  bool boolean(std::string_view name, bool otherwise);
  std::optional<int64_t> integer(std::string_view name, int64_t min, int64_t max);
  std::optional<double> number(std::string_view name, double min, double max);
  std::optional<std::string> text(std::string_view name);
  std::string required_text(std::string_view name);
  // A list that is not empty.
  const Json::Array& required_list(std::string_view name);

  // "messages[2].name"
  std::string param(std::string_view name) const;
  // Members that nobody has asked for, in their order.
  std::vector<std::string> unknown() const;

 private:
  const Json::Object& members_;
  std::string param_;
  std::set<std::string, std::less<>> known_;
};

}  // namespace quern
