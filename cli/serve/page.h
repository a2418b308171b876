// The page to talk on that a server shows at "/": one HTML file without a request to anywhere but the server.
#pragma once

#include <string>
#include <string_view>

#include "cli/serve/http_server.h"

namespace quern {

// cli/serve/page/, joined by the build (embed.cmake).
extern const std::string_view kPageHtml;

// The page, and the headers that let it run what it brings along and ask its own server, and nothing else.
// nonce: letters and digits that nobody guesses, new for each answer.
HttpResponse page_response(const std::string& nonce);

}  // namespace quern
