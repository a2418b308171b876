// HTTP/1.1 messages (RFC 9110, RFC 9112): requests as they come in, and what is written back. No sockets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quern {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;  // "POST"
  std::string path;    // "/v1/models", without the query
  HttpHeaders headers;
  std::string body;
  bool keep_alive = true;  // the client wants the connection to stay
  bool is_http_1_0 = false;

  // The value of the header of this name, in any case; null: not there. Of several the first.
  const std::string* header(std::string_view name) const;
};

// A message that is refused; status: of the answer.
class HttpError : public std::runtime_error {
 public:
  HttpError(int status, const std::string& message) : std::runtime_error(message), status_(status) {}
  int status() const { return status_; }

 private:
  int status_;
};

struct HttpLimits {
  uint32_t head_bytes = 16 * 1024;  // request line and headers
  size_t headers = 100;
  uint64_t body_bytes = 8u << 20;
};

// Takes the bytes of one request as they come.
class HttpRequestParser {
 public:
  explicit HttpRequestParser(const HttpLimits& limits);
  ~HttpRequestParser();
  HttpRequestParser(const HttpRequestParser&) = delete;
  HttpRequestParser& operator=(const HttpRequestParser&) = delete;

  // Returns how many of `bytes` belong to the request; those that are left have to be offered again, with
  // more behind them, while it is not done. Throws HttpError for what breaks the protocol (400) or a limit
  // (413, 431).
  size_t push(std::string_view bytes);
  bool head_done() const;
  bool done() const;
  // The head says "Expect: 100-continue".
  bool expects_continue() const;
  // Once done.
  HttpRequest take();

 private:
  struct Parser;
  std::unique_ptr<Parser> parser_;
  HttpLimits limits_;
};

// The text of the status: "Not Found".
std::string_view http_reason(int status);
// Status line and headers, and the empty line behind them. Control characters in values become spaces.
std::string http_head(int status, const HttpHeaders& headers);

}  // namespace quern
