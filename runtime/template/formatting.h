// "%s" % x and "{}".format(x), as Python has them.
#pragma once

#include "runtime/template/value.h"

namespace quern::jinja {

Value percent_format(Interpreter& in, const Value& format, const Value& arguments);
Value format_method(Interpreter& in, const String& format, const Arguments& arguments);

}  // namespace quern::jinja
