// Who may ask a server for what: keys, and the checks that keep web pages from asking in a user's name.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/serve/http_server.h"

namespace quern {

struct AccessOptions {
  std::string address;                     // that the server is bound to; empty: a unix socket
  std::vector<std::string> host_names;     // beside the address and localhost
  std::vector<std::string> allow_origins;  // beside the server's own: "https://example.org"
  std::vector<std::string> keys;           // none: everybody may ask
};

// The keys of a file, a line each; empty lines and those that begin with # are none. Throws kUsage for a file
// without one, kIo. option: that named the file, for errors.
std::vector<std::string> read_key_file(std::string_view option, const std::string& path);

// Thread-safe.
class Access {
 public:
  explicit Access(AccessOptions options) : options_(std::move(options)) {}

  // Throws ApiError: 400 or 403 for a Host or an Origin that is not the server's (a page of another site, or
  // a name that was made to point here), 415 for a body that is no JSON.
  void check(const HttpRequest& request, const HttpClient& client) const;
  // Throws ApiError 401 without one of the keys. Returns a name for whom the key belongs to: "key 1"; ""
  // where there are none.
  std::string owner(const HttpRequest& request) const;
  // Lets the page of an Origin read the answer, when it is one of `allow_origins`.
  void tell_origin(const HttpRequest& request, HttpResponse* response) const;
  // The Origin, when it is one of `allow_origins`.
  std::optional<std::string> allowed_origin(const HttpRequest& request) const;

 private:
  AccessOptions options_;
};

}  // namespace quern
