// HTML escapes, for what the filters `escape` and `safe` mark.
#pragma once

#include "runtime/template/value.h"

namespace quern::jinja {

// & < > ' " as entities; the bytes keep their origin.
Text escape(Interpreter& in, const Text& text);
// A value as markup: itself when it is, else its text escaped.
Value to_markup(Interpreter& in, const Value& value);

}  // namespace quern::jinja
