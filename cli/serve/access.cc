#include "cli/serve/access.h"

#include <algorithm>

#include "cli/serve/request_fields.h"
#include "cli/text_input.h"
#include "quant/utf8.h"

namespace quern {
namespace {

// The same time whatever the texts are, given their lengths.
bool equal_in_constant_time(std::string_view given, std::string_view key) {
  unsigned difference = given.size() == key.size() ? 0 : 1;
  for (size_t i = 0; i < given.size(); ++i)
    difference |= static_cast<unsigned>(static_cast<unsigned char>(given[i])) ^
                  static_cast<unsigned>(static_cast<unsigned char>(key[i % key.size()]));
  return difference == 0;
}

// "[::1]:8080" -> "::1", "localhost:8080" -> "localhost"
std::string host_name(std::string_view host) {
  if (host.starts_with('[')) {
    const size_t end = host.find(']');
    return std::string(host.substr(1, end == host.npos ? host.npos : end - 1));
  }
  return lower_ascii(host.substr(0, host.find(':')));
}

bool contains(const std::vector<std::string>& list, const std::string& text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

}  // namespace

std::vector<std::string> read_key_file(std::string_view option, const std::string& path) {
  std::vector<std::string> keys;
  const std::string text = read_bytes(path);
  std::string_view rest = text;
  while (!rest.empty()) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    while (line.ends_with('\r') || line.ends_with(' ')) line.remove_suffix(1);
    if (!line.empty() && !line.starts_with('#')) keys.emplace_back(line);
  }
  if (keys.empty())
    fail(ErrorCode::kUsage, "{}: '{}' has no key (a line each)", option, printable(path, kPathBytes));
  return keys;
}

void Access::check(const HttpRequest& request, const HttpClient& client) const {
  const std::string* host = request.header("Host");
  if (host == nullptr && !request.is_http_1_0)
    throw ApiError(400, kInvalidRequest, "the Host header is missing");
  if (host != nullptr && !options_.address.empty()) {
    const std::string name = host_name(*host);
    const bool known = name == "localhost" || name == lower_ascii(options_.address) ||
                       name == client.local_address() || contains(options_.host_names, name);
    if (!known)
      throw ApiError(403, kInvalidRequest,
                     fmt::format("the server is not called '{}' (--host-name)", printable(name)));
  }
  const std::string* origin = request.header("Origin");
  if (origin != nullptr && !allowed_origin(request) &&
      (host == nullptr || lower_ascii(*origin) != "http://" + lower_ascii(*host)))
    throw ApiError(403, kInvalidRequest,
                   fmt::format("pages of '{}' may not ask (--allow-origin)", printable(*origin)));
  if (request.method != "POST") return;
  const std::string* type = request.header("Content-Type");
  const std::string essence = type == nullptr ? "" : lower_ascii(type->substr(0, type->find(';')));
  if (essence.substr(0, essence.find(' ')) != "application/json")
    throw ApiError(415, kInvalidRequest, "expected Content-Type: application/json");
}

std::string Access::owner(const HttpRequest& request) const {
  if (options_.keys.empty()) return {};
  std::string given;
  constexpr std::string_view kBearer = "Bearer ";
  if (const std::string* value = request.header("Authorization");
      value != nullptr && value->starts_with(kBearer))
    given = value->substr(kBearer.size());
  else if (const std::string* key = request.header("x-api-key"))
    given = *key;
  std::string owner;
  for (size_t i = 0; i < options_.keys.size(); ++i)  // all of them, always
    if (equal_in_constant_time(given, options_.keys[i])) owner = fmt::format("key {}", i + 1);
  if (owner.empty())
    throw ApiError(401, "authentication_error", "an API key is needed (Authorization: Bearer KEY)", {},
                   "invalid_api_key");
  return owner;
}

void Access::tell_origin(const HttpRequest& request, HttpResponse* response) const {
  const std::optional<std::string> origin = allowed_origin(request);
  if (!origin) return;
  response->headers.emplace_back("Access-Control-Allow-Origin", *origin);
  response->headers.emplace_back("Vary", "Origin");
}

std::optional<std::string> Access::allowed_origin(const HttpRequest& request) const {
  const std::string* origin = request.header("Origin");
  if (origin == nullptr || !contains(options_.allow_origins, *origin)) return std::nullopt;
  return *origin;
}

}  // namespace quern
