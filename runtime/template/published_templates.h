// Templates that were published with a model and describe one of the built-in chat formats.
#pragma once

#include <string_view>

namespace quern {

// "mistral-v1", or empty for any other template. Compared token by token, so that quotes and white space
// inside tags do not count; one other literal, one more tag, and it is another template.
std::string_view published_format(std::string_view chat_template);

}  // namespace quern
