// The functions behind the rows of the table of filters, by what they work on.
#pragma once

#include "runtime/template/builtins.h"

namespace quern::jinja::filter {

// ---- text (text_filters.cc) ----
Value capitalize(BuiltinCall& call);
Value center(BuiltinCall& call);
Value escape_text(BuiltinCall& call);
Value filesizeformat(BuiltinCall& call);
Value force_escape(BuiltinCall& call);
Value format(BuiltinCall& call);
Value indent(BuiltinCall& call);
Value lower(BuiltinCall& call);
Value replace(BuiltinCall& call);
Value safe(BuiltinCall& call);
Value string(BuiltinCall& call);
Value striptags(BuiltinCall& call);
Value title(BuiltinCall& call);
Value tojson(BuiltinCall& call);
Value trim(BuiltinCall& call);
Value truncate(BuiltinCall& call);
Value upper(BuiltinCall& call);
Value urlencode(BuiltinCall& call);
Value wordcount(BuiltinCall& call);
Value xmlattr(BuiltinCall& call);

// ---- sequences (sequence_filters.cc) ----
Value batch(BuiltinCall& call);
Value dictsort(BuiltinCall& call);
Value first(BuiltinCall& call);
Value groupby(BuiltinCall& call);
Value items(BuiltinCall& call);
Value join(BuiltinCall& call);
Value last(BuiltinCall& call);
Value length(BuiltinCall& call);
Value list(BuiltinCall& call);
Value map(BuiltinCall& call);
Value max(BuiltinCall& call);
Value min(BuiltinCall& call);
Value reject(BuiltinCall& call);
Value rejectattr(BuiltinCall& call);
Value reverse(BuiltinCall& call);
Value select(BuiltinCall& call);
Value selectattr(BuiltinCall& call);
Value slice(BuiltinCall& call);
Value sort(BuiltinCall& call);
Value sum(BuiltinCall& call);
Value unique(BuiltinCall& call);

// ---- numbers and the rest (value_filters.cc) ----
Value absolute(BuiltinCall& call);
Value attribute(BuiltinCall& call);
Value default_value(BuiltinCall& call);
Value to_float(BuiltinCall& call);
Value to_int(BuiltinCall& call);
Value round(BuiltinCall& call);

}  // namespace quern::jinja::filter
