// A template's text -> its tree.
#pragma once

#include "runtime/template/source.h"
#include "runtime/template/syntax.h"

namespace quern::jinja {

// jinja2's grammar with the extensions loopcontrols and transformers' `generation`. Refuses what breaks it,
// and nesting beyond kMaxNesting.
Program parse(const Source& source);

}  // namespace quern::jinja
