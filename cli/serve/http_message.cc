#include "cli/serve/http_message.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include "quant/utf8.h"

namespace quern {
namespace {

namespace http = boost::beast::http;

// Of the strings of Boost's own kinds.
template <class Text>
std::string copy(const Text& text) {
  return {text.data(), text.size()};
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return lower_ascii(x) == lower_ascii(y); });
}

}  // namespace

const std::string* HttpRequest::header(std::string_view name) const {
  for (const auto& [key, value] : headers)
    if (equal_ignoring_case(key, name)) return &value;
  return nullptr;
}

struct HttpRequestParser::Parser {
  http::request_parser<http::string_body> beast;
};

HttpRequestParser::HttpRequestParser(const HttpLimits& limits)
    : parser_(std::make_unique<Parser>()), limits_(limits) {
  parser_->beast.header_limit(limits.head_bytes);
  parser_->beast.body_limit(limits.body_bytes);
  parser_->beast.eager(true);
}

HttpRequestParser::~HttpRequestParser() = default;

size_t HttpRequestParser::push(std::string_view bytes) {
  size_t used = 0;
  while (used < bytes.size() && !done()) {
    boost::system::error_code error;
    const size_t n = parser_->beast.put(boost::asio::buffer(bytes.data() + used, bytes.size() - used), error);
    used += n;
    if (error == http::error::need_more) break;
    if (error == http::error::body_limit)
      throw HttpError(413, fmt::format("the body is larger than {} bytes", limits_.body_bytes));
    if (error == http::error::header_limit)
      throw HttpError(431, fmt::format("the headers are larger than {} bytes", limits_.head_bytes));
    if (error) throw HttpError(400, "this is no HTTP request: " + error.message());
    if (n == 0) break;
  }
  if (head_done()) {
    const auto& message = parser_->beast.get();
    const auto n_headers = static_cast<size_t>(std::distance(message.begin(), message.end()));
    if (n_headers > limits_.headers)
      throw HttpError(431, fmt::format("{} headers are more than {}", n_headers, limits_.headers));
  }
  return used;
}

bool HttpRequestParser::head_done() const { return parser_->beast.is_header_done(); }
bool HttpRequestParser::done() const { return parser_->beast.is_done(); }

bool HttpRequestParser::expects_continue() const {
  return equal_ignoring_case(copy(parser_->beast.get()[http::field::expect]), "100-continue");
}

HttpRequest HttpRequestParser::take() {
  auto message = parser_->beast.release();
  HttpRequest request;
  request.method = copy(message.method_string());
  request.path = copy(message.target());
  request.path.resize(std::min(request.path.size(), request.path.find('?')));
  for (const auto& field : message)
    request.headers.emplace_back(copy(field.name_string()), copy(field.value()));
  request.keep_alive = message.keep_alive();
  request.is_http_1_0 = message.version() == 10;
  request.body = std::move(message.body());
  return request;
}

std::string_view http_reason(int status) {
  const auto reason = http::obsolete_reason(static_cast<http::status>(status));
  return {reason.data(), reason.size()};
}

std::string http_head(int status, const HttpHeaders& headers) {
  std::string head = fmt::format("HTTP/1.1 {} {}\r\n", status, http_reason(status));
  for (const auto& [name, value] : headers) {
    std::string clean = value;
    std::replace_if(
        clean.begin(), clean.end(), [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; },
        ' ');
    head += name + ": " + clean + "\r\n";
  }
  return head + "\r\n";
}

}  // namespace quern
