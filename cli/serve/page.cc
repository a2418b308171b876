#include "cli/serve/page.h"

#include <fmt/format.h>

namespace quern {

HttpResponse page_response(const std::string& nonce) {
  constexpr std::string_view kPlace = "@NONCE@";
  HttpResponse response = {200, "text/html; charset=utf-8", {}, {}};
  std::string_view rest = kPageHtml;
  for (size_t at; (at = rest.find(kPlace)) != rest.npos; rest.remove_prefix(at + kPlace.size()))
    response.body.append(rest.substr(0, at)).append(nonce);
  response.body.append(rest);
  response.headers = {
      {"Content-Security-Policy",
       fmt::format("default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; connect-src 'self'; "
                   "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
                   nonce)},
      {"X-Content-Type-Options", "nosniff"},
      {"Referrer-Policy", "no-referrer"},
      {"Cache-Control", "no-store"}};
  return response;
}

}  // namespace quern
