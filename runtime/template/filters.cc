#include "runtime/template/filters.h"

namespace quern::jinja {
namespace {

// jinja2's, without those that no chat template has a use for: pprint, random, urlize, wordwrap.
constexpr Builtin kFilters[] = {
    {"abs", "", 0, filter::absolute},
    {"attr", "name", 1, filter::attribute},
    {"batch", "linecount fill_with", 1, filter::batch},
    {"capitalize", "", 0, filter::capitalize},
    {"center", "width", 0, filter::center},
    {"count", "", 0, filter::length},
    {"d", "default_value boolean", 0, filter::default_value},
    {"default", "default_value boolean", 0, filter::default_value},
    {"dictsort", "case_sensitive by reverse", 0, filter::dictsort},
    {"e", "", 0, filter::escape_text},
    {"escape", "", 0, filter::escape_text},
    {"filesizeformat", "binary", 0, filter::filesizeformat},
    {"first", "", 0, filter::first},
    {"float", "default", 0, filter::to_float},
    {"forceescape", "", 0, filter::force_escape},
    {"format", "*", 0, filter::format},
    {"groupby", "attribute default case_sensitive", 1, filter::groupby},
    {"indent", "width first blank", 0, filter::indent},
    {"int", "default base", 0, filter::to_int},
    {"items", "", 0, filter::items},
    {"join", "d attribute", 0, filter::join},
    {"last", "", 0, filter::last},
    {"length", "", 0, filter::length},
    {"list", "", 0, filter::list},
    {"lower", "", 0, filter::lower},
    {"map", "*", 0, filter::map},
    {"max", "case_sensitive attribute", 0, filter::max},
    {"min", "case_sensitive attribute", 0, filter::min},
    {"reject", "*", 0, filter::reject},
    {"rejectattr", "*", 0, filter::rejectattr},
    {"replace", "old new count", 2, filter::replace},
    {"reverse", "", 0, filter::reverse},
    {"round", "precision method", 0, filter::round},
    {"safe", "", 0, filter::safe},
    {"select", "*", 0, filter::select},
    {"selectattr", "*", 0, filter::selectattr},
    {"slice", "slices fill_with", 1, filter::slice},
    {"sort", "reverse case_sensitive attribute", 0, filter::sort},
    {"string", "", 0, filter::string},
    {"striptags", "", 0, filter::striptags},
    {"sum", "attribute start", 0, filter::sum},
    {"title", "", 0, filter::title},
    {"tojson", "ensure_ascii indent separators sort_keys", 0, filter::tojson},
    {"trim", "chars", 0, filter::trim},
    {"truncate", "length killwords end leeway", 0, filter::truncate},
    {"unique", "case_sensitive attribute", 0, filter::unique},
    {"upper", "", 0, filter::upper},
    {"urlencode", "", 0, filter::urlencode},
    {"wordcount", "", 0, filter::wordcount},
    {"xmlattr", "autospace", 0, filter::xmlattr},
};

}  // namespace

std::span<const Builtin> filters() noexcept { return kFilters; }

}  // namespace quern::jinja
