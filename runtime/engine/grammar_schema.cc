#include "runtime/engine/grammar_schema.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <tuple>
#include <unordered_map>
#include <unordered_set>

#include "quant/error.h"
#include "quant/json/json_writer.h"
#include "quant/utf8.h"
#include "runtime/engine/grammar_json.h"
#include "runtime/engine/grammar_regex.h"
#include "runtime/engine/schema_document.h"

namespace quern {
namespace {

using State = GrammarBuilder::State;
using Rule = GrammarBuilder::Rule;

constexpr std::string_view kAnnotations[] = {
    "title",   "description", "default",       "examples",         "$comment",
    "$schema", "$id",         "$defs",         "definitions",      "deprecated",
    "id",      "readOnly",    "writeOnly",     "contentMediaType", "contentEncoding",
    "example", "nullable",    "contentSchema", "$anchor"};
// Keywords that say something of values of one type alone.
struct TypedKeyword {
  std::string_view name;
  unsigned type;
};
constexpr TypedKeyword kTyped[] = {{"properties", kObjectType},
                                   {"required", kObjectType},
                                   {"additionalProperties", kObjectType},
                                   {"unevaluatedProperties", kObjectType},
                                   {"minProperties", kObjectType},
                                   {"maxProperties", kObjectType},
                                   {"items", kArrayType},
                                   {"prefixItems", kArrayType},
                                   {"minItems", kArrayType},
                                   {"maxItems", kArrayType},
                                   {"uniqueItems", kArrayType},
                                   {"minLength", kStringType},
                                   {"maxLength", kStringType},
                                   {"pattern", kStringType},
                                   {"format", kStringType},
                                   {"minimum", kNumberType},
                                   {"maximum", kNumberType},
                                   {"exclusiveMinimum", kNumberType},
                                   {"exclusiveMaximum", kNumberType},
                                   {"multipleOf", kNumberType}};
// And those that stand for a schema by themselves.
constexpr std::string_view kWhole[] = {"$ref", "const", "enum", "anyOf", "oneOf", "allOf"};

struct Format {
  std::string_view name, pattern;
};
#define QUERN_DATE                                                                                           \
  "[1-9][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[" \
  "0-"                                                                                                       \
  "9]|2[0-8]))"
#define QUERN_TIME \
  "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
#define QUERN_OCTET "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define QUERN_LABEL "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?"
constexpr Format kFormats[] = {
    {"date", QUERN_DATE},
    {"time", QUERN_TIME},
    {"date-time", QUERN_DATE "T" QUERN_TIME},
    {"uuid", "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"},
    {"ipv4", QUERN_OCTET "(\\." QUERN_OCTET "){3}"},
    {"ipv6", "[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}"},
    {"hostname", QUERN_LABEL "(\\." QUERN_LABEL "){0,7}"},
    {"email", "[A-Za-z0-9_+-]{1,16}(\\.[A-Za-z0-9_+-]{1,16}){0,2}@" QUERN_LABEL "(\\." QUERN_LABEL "){1,4}"},
    {"uri",
     "https?://" QUERN_LABEL "(\\." QUERN_LABEL "){0,7}(/[A-Za-z0-9_.~-]{0,64}){0,16}(\\?[A-Za-z0-9_.~=&-]"
     "{1,256})?"},
};
#undef QUERN_DATE
#undef QUERN_TIME
#undef QUERN_OCTET
#undef QUERN_LABEL

constexpr int64_t kMaxInteger = JsonPieces::kMaxInteger;

template <size_t n>
bool is_in(const std::string_view (&names)[n], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

class SchemaCompiler {
 public:
  SchemaCompiler(GrammarBuilder& builder, const Json& root, const std::string& where,
                 const ValueNotation& notation = kJsonNotation)
      : b_(builder), notation_(notation), json_(builder, notation), where_(where), document_(root, where) {}

  Rule compile(const Json& part, const std::string& path) {
    const Rule rule = rule_of(part, path);
    compile_pending();
    return rule;
  }

  // Of the root, which is an object.
  Rule compile_call(const Json& root) {
    const Rule rule = b_.add_rule("a call's arguments");
    b_.add_empty(arguments(b_.begin(rule), root, "#"), b_.end(rule));
    compile_pending();
    return rule;
  }

 private:
  struct Pending {
    const Json* schema;
    std::string path;
    Rule rule;
  };

  void compile_pending() {
    while (!pending_.empty()) {
      const Pending next = pending_.front();
      pending_.pop_front();
      b_.add_empty(schema(b_.begin(next.rule), *next.schema, next.path), b_.end(next.rule));
    }
  }

  [[noreturn]] void refuse(const std::string& path, std::string_view keyword, const std::string& why) const {
    document_.refuse(path, keyword, why);
  }

  // Each place once, whoever refers to it.
  Rule rule_of(const Json& schema, const std::string& path) {
    const auto [found, is_new] = rules_.try_emplace(&schema, 0);
    if (is_new) {
      found->second = b_.add_rule(path);
      pending_.push_back({&schema, path, found->second});
    }
    return found->second;
  }
  State value(State from, const Json& schema, const std::string& path, bool outermost = false) {
    return outermost ? arguments(from, schema, path) : b_.call(from, rule_of(schema, path));
  }
  // The outermost object of a call, written in place, for whoever refers to it elsewhere means a plain one.
  State arguments(State from, const Json& schema, const std::string& path) {
    constexpr int kMaxReferences = 32;
    if (n_outer_ == kMaxReferences) refuse(path, "$ref", "there is no object behind so many references");
    ++n_outer_;
    const State at = this->schema(from, schema, path, true);
    --n_outer_;
    return at;
  }

  // --- one schema

  // outermost: it is an object, written as a call.
  State schema(State from, const Json& schema, const std::string& path, bool outermost = false) {
    if (const bool* everything = schema.as_bool()) {
      if (!*everything) return b_.add_state();
      static const Json any(Json::Object{});
      return outermost ? object(from, any, path, true) : b_.call(from, any_value());
    }
    if (schema.as_object() == nullptr)
      fail(ErrorCode::kMalformed, "{}: {}: expected a schema, found {}", where_, printable(path, 200),
           schema.describe());
    std::string_view whole;
    unsigned asked = 0;  // types that keywords speak of
    std::string_view typed;
    for (const JsonMember& one : *schema.as_object()) {
      if (one.key == "type" || is_in(kAnnotations, one.key) || one.key.starts_with("x-")) continue;
      if (is_in(kWhole, one.key)) {
        if (!whole.empty()) refuse(path, one.key, fmt::format("not taken beside {}", whole));
        whole = one.key;
        continue;
      }
      const auto* known = std::find_if(std::begin(kTyped), std::end(kTyped),
                                       [&](const TypedKeyword& keyword) { return keyword.name == one.key; });
      if (known == std::end(kTyped))
        refuse(path, printable(one.key),
               "this keyword is not supported, and to ignore it would break a promise");
      asked |= known->type;
      typed = one.key;
    }
    const unsigned types = document_.stated_types(schema, path);
    if (!whole.empty()) {
      if (asked != 0) refuse(path, typed, fmt::format("not taken beside {}", whole));
      return by_keyword(from, schema, whole, types, path, outermost);
    }
    if (outermost) return (types & kObjectType) != 0 ? object(from, schema, path, true) : b_.add_state();
    if (schema.find("type") == nullptr && asked == 0) return b_.call(from, any_value());
    return by_type(from, schema, schema.find("type") != nullptr ? types : asked, path);
  }

  State by_keyword(State from, const Json& schema, std::string_view keyword, unsigned types,
                   const std::string& path, bool outermost) {
    const Json& operand = *schema.find(keyword);
    const std::string place = fmt::format("{}/{}", path, keyword);
    if (keyword == "$ref") {
      if (operand.as_string() == nullptr)
        refuse(path, keyword, "expected a string, found " + operand.describe());
      const Json& referred = document_.resolve(*operand.as_string(), path);
      require_within(referred, types, path, keyword);
      return value(from, referred, *operand.as_string(), outermost);
    }
    if (keyword == "const" || keyword == "enum") {
      if (outermost) refuse(path, keyword, "arguments that are written as a call have no list of values");
      std::vector<std::string> texts;
      for (const Json& one : document_.constants(schema, path)) {
        if ((SchemaDocument::type_of(one) & types) == 0) continue;
        const std::vector<std::string> ways = written_values(one, notation_);
        texts.insert(texts.end(), ways.begin(), ways.end());
      }
      return add_choice(b_, from, std::move(texts));
    }
    if (operand.as_array() == nullptr || operand.size() == 0)
      refuse(path, keyword, "expected a list of schemas, found " + operand.describe());
    if (keyword == "allOf" && operand.size() > 1)
      refuse(path, keyword,
             "more than one schema at a time is not supported; write what they come to as one");
    if (keyword == "oneOf") document_.require_disjoint(operand, path);
    std::vector<GrammarBuilder::Piece> pieces;
    for (size_t i = 0; i < operand.size(); ++i) {
      const std::string one = fmt::format("{}/{}", place, i);
      require_within(operand[i], types, one, "type");
      pieces.emplace_back(
          [this, &operand, i, one, outermost](State at) { return value(at, operand[i], one, outermost); });
    }
    return b_.any_of(from, pieces);
  }

  // A "type" beside a reference or a choice must say nothing that these do not say.
  void require_within(const Json& schema, unsigned types, const std::string& path, std::string_view keyword) {
    if (types != kAnyType && (document_.own_types(schema, path) & ~types) != 0)
      refuse(path, keyword, "the \"type\" beside it takes less than it; state the type there");
  }

  // --- types

  State by_type(State from, const Json& schema, unsigned types, const std::string& path) {
    std::vector<GrammarBuilder::Piece> pieces;
    if ((types & kNullType) != 0) pieces.emplace_back([this](State at) { return json_.nulls(at); });
    if ((types & kBooleanType) != 0) pieces.emplace_back([this](State at) { return json_.booleans(at); });
    if ((types & kNumberType) != 0)
      pieces.emplace_back([&, this](State at) { return number(at, schema, path); });
    else if ((types & kIntegerType) != 0)
      pieces.emplace_back([&, this](State at) { return integer(at, schema, path); });
    if ((types & kStringType) != 0)
      pieces.emplace_back([&, this](State at) { return string(at, schema, path); });
    if ((types & kArrayType) != 0)
      pieces.emplace_back([&, this](State at) { return array(at, schema, path); });
    if ((types & kObjectType) != 0)
      pieces.emplace_back([&, this](State at) { return object(at, schema, path); });
    return b_.any_of(from, pieces);
  }

  std::optional<size_t> count(const Json& schema, std::string_view keyword, const std::string& path) const {
    const Json* value = schema.find(keyword);
    if (value == nullptr) return std::nullopt;
    const std::optional<double> x = value->as_number();
    if (!x || *x < 0 || *x != std::trunc(*x))
      refuse(path, keyword, "expected a whole number from 0, found " + value->describe());
    return static_cast<size_t>(std::min(*x, 1e15));
  }

  // A maximum that is too large to be counted is a smaller one.
  struct Counts {
    size_t min;
    std::optional<size_t> max;
  };
  Counts counts(const Json& schema, std::string_view min, std::string_view max,
                const std::string& path) const {
    Counts both = {count(schema, min, path).value_or(0), count(schema, max, path)};
    if (both.min > GrammarBuilder::kMaxCount)
      refuse(path, min, fmt::format("expected at most {}, found {}", GrammarBuilder::kMaxCount, both.min));
    if (both.max) both.max = std::min(*both.max, GrammarBuilder::kMaxCount);
    return both;
  }

  // --- strings

  State string(State from, const Json& schema, const std::string& path) {
    const Json *pattern = schema.find("pattern"), *format = schema.find("format");
    const bool has_length = schema.find("minLength") != nullptr || schema.find("maxLength") != nullptr;
    for (const auto& [keyword, value] : {std::pair<std::string_view, const Json*>{"pattern", pattern},
                                         std::pair<std::string_view, const Json*>{"format", format}}) {
      if (value == nullptr) continue;
      if (value->as_string() == nullptr)
        refuse(path, keyword, "expected a string, found " + value->describe());
      if (has_length || (pattern != nullptr && format != nullptr))
        refuse(path, keyword, "not supported beside lengths or another of them");
    }
    if (format != nullptr) {
      const Rule rule = format_rule(*format->as_string(), path);
      return json_.string(from, [&](State at, std::string_view) { return b_.call(at, rule); });
    }
    if (pattern != nullptr)
      return json_.string(from, [&](State at, std::string_view quote) {
        const RegexOptions options = {.searches = true, .write = [this, quote](State s, const CharSet& set) {
                                        return json_.characters(s, set, quote);
                                      }};
        return add_regex(b_, at, *pattern->as_string(),
                         fmt::format("{}: {}: pattern", where_, printable(path, 200)), options);
      });
    const Counts n = counts(schema, "minLength", "maxLength", path);
    if (!notation_.has_escapes && n.min == 0 && !n.max) {
      const std::string_view quote = notation_.quotes[0];
      return b_.until(b_.text(from, quote), quote);
    }
    return json_.string(from, [&](State at, std::string_view quote) {
      const auto [found, is_new] = text_rules_.try_emplace({n.min, n.max, quote}, 0);
      if (is_new) {
        const Rule rule = found->second = b_.add_rule("a string's text"), one = json_.any_char(quote);
        b_.add_empty(b_.repeat(
                         b_.begin(rule), [&](State s) { return b_.call(s, one); }, n.min, n.max),
                     b_.end(rule));
      }
      return b_.call(at, found->second);
    });
  }

  // Its texts are of letters, digits and signs that need no escape and are in no quote.
  Rule format_rule(const std::string& name, const std::string& path) {
    const auto* known = std::find_if(std::begin(kFormats), std::end(kFormats),
                                     [&](const Format& one) { return one.name == name; });
    if (known == std::end(kFormats)) {
      std::string names;
      for (const Format& one : kFormats) names += fmt::format("{}{}", names.empty() ? "" : ", ", one.name);
      refuse(path, "format", fmt::format("'{}' is not supported; there are {}", printable(name), names));
    }
    const auto [found, is_new] = format_rules_.try_emplace(std::string(known->name), 0);
    if (is_new) {
      found->second = b_.add_rule("format");
      b_.add_empty(add_regex(b_, b_.begin(found->second), known->pattern, where_), b_.end(found->second));
    }
    return found->second;
  }

  // --- numbers

  std::optional<double> number_of(const Json& schema, std::string_view keyword,
                                  const std::string& path) const {
    const Json* value = schema.find(keyword);
    if (value == nullptr) return std::nullopt;
    if (value->as_bool() != nullptr)
      refuse(path, keyword, "expected a number; true and false are of draft 4");
    const std::optional<double> x = value->as_number();
    if (!x) refuse(path, keyword, "expected a number, found " + value->describe());
    return x;
  }

  // An integer bound as it is stated, where a double would round it.
  int64_t exact_bound(const Json& schema, std::string_view keyword, double x) const {
    if (const std::optional<int64_t> n = schema.find(keyword)->as_int()) return *n;
    return static_cast<int64_t>(std::clamp(x, -9e18, 9e18));
  }

  // Bounds that integers keep to.
  NumberBounds integer_bounds(const Json& schema, const std::string& path) const {
    NumberBounds bounds;
    const auto raise = [&](int64_t low) { bounds.low = bounds.low ? std::max(*bounds.low, low) : low; };
    const auto lower = [&](int64_t high) { bounds.high = bounds.high ? std::min(*bounds.high, high) : high; };
    if (const auto x = number_of(schema, "minimum", path))
      raise(exact_bound(schema, "minimum", std::ceil(*x)));
    if (const auto x = number_of(schema, "maximum", path))
      lower(exact_bound(schema, "maximum", std::floor(*x)));
    if (const auto x = number_of(schema, "exclusiveMinimum", path)) {
      const int64_t low = exact_bound(schema, "exclusiveMinimum", std::floor(*x));
      if (low < kMaxInteger)
        raise(low + 1);
      else
        raise(INT64_MAX);
    }
    if (const auto x = number_of(schema, "exclusiveMaximum", path)) {
      const int64_t high = exact_bound(schema, "exclusiveMaximum", std::ceil(*x));
      if (high > -kMaxInteger)
        lower(high - 1);
      else
        lower(INT64_MIN);
    }
    return bounds;
  }

  void refuse_multiple(const Json& schema, const std::string& path, bool of_integers) const {
    const std::optional<double> x = number_of(schema, "multipleOf", path);
    if (x && !(of_integers && *x == 1)) refuse(path, "multipleOf", "not supported");
  }

  State integer(State from, const Json& schema, const std::string& path) {
    refuse_multiple(schema, path, true);
    const NumberBounds bounds = integer_bounds(schema, path);
    const int64_t low = std::max(bounds.low.value_or(-kMaxInteger), -kMaxInteger);
    const int64_t high = std::min(bounds.high.value_or(kMaxInteger), kMaxInteger);
    return json_.integers(from, low, high);
  }

  State number(State from, const Json& schema, const std::string& path) {
    refuse_multiple(schema, path, false);
    NumberBounds bounds;
    for (const std::string_view keyword : {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}) {
      const std::optional<double> x = number_of(schema, keyword, path);
      if (!x) continue;
      if (*x != std::trunc(*x) || std::abs(*x) >= 1e9)
        refuse(path, keyword,
               fmt::format("expected a whole number below 1e9 for a number's bound, found {}", *x));
      const auto n = static_cast<int64_t>(*x);
      const bool open = keyword.starts_with("exclusive"), is_low = keyword.ends_with("inimum");
      std::optional<int64_t>& bound = is_low ? bounds.low : bounds.high;
      bool& is_open = is_low ? bounds.low_open : bounds.high_open;
      if (!bound || (is_low ? n > *bound : n < *bound)) {
        bound = n;
        is_open = open;
      } else if (n == *bound) {
        is_open |= open;
      }
    }
    return json_.numbers(from, bounds);
  }

  // --- arrays and objects

  Rule any_value() {
    if (any_value_) return *any_value_;
    const Rule rule = b_.add_rule("any value");
    any_value_ = rule;
    const Json everything(Json::Object{});
    b_.add_empty(by_type(b_.begin(rule), everything, kAnyType, "#"), b_.end(rule));
    return rule;
  }

  State array(State from, const Json& schema, const std::string& path) {
    const Json *items = schema.find("items"), *prefix = schema.find("prefixItems");
    if (items != nullptr && items->as_array() != nullptr)
      refuse(path, "items", "a list of schemas is of older drafts; prefixItems says it now");
    if (prefix != nullptr && prefix->as_array() == nullptr)
      refuse(path, "prefixItems", "expected a list of schemas, found " + prefix->describe());
    Counts n = counts(schema, "minItems", "maxItems", path);
    if (const Json* unique = schema.find("uniqueItems")) {
      if (unique->as_bool() == nullptr) refuse(path, "uniqueItems", "expected true or false");
      if (*unique->as_bool() && !(n.max && *n.max <= 1)) refuse(path, "uniqueItems", "not supported");
    }
    const size_t n_prefix = prefix != nullptr ? prefix->size() : 0;
    const auto item = [&](State at) {
      return items != nullptr ? value(at, *items, path + "/items") : b_.call(at, any_value());
    };
    const State out = b_.add_state();
    if (n.max && *n.max < n.min) return out;
    from = b_.text(from, "[");
    if (n.min == 0) b_.add_empty(json_.space(from), out);
    if (n.max != 0) {
      // States by how many of the prefix are there; then the rest, counted.
      State at = json_.space(from);
      size_t done = 0;
      const auto may_stop = [&](State here) {
        if (done >= n.min && done > 0) b_.add_empty(json_.space(here), out);
      };
      for (; done < n_prefix && (!n.max || done < *n.max); ++done) {
        may_stop(at);
        at = value(done > 0 ? json_.comma(at) : at, (*prefix)[done],
                   fmt::format("{}/prefixItems/{}", path, done));
      }
      if (n.max && done == *n.max) {
        b_.add_empty(json_.space(at), out);
      } else {
        may_stop(at);
        if (done == 0) {
          at = item(at);
          ++done;
        }
        const auto left = [&](size_t total) { return total > done ? total - done : 0; };
        at = b_.repeat(
            at, [&](State here) { return item(json_.comma(here)); }, left(n.min),
            n.max ? std::optional(left(*n.max)) : std::nullopt);
        b_.add_empty(json_.space(at), out);
      }
    }
    return b_.text(out, "]");
  }

  struct Property {
    std::string name;
    const Json* schema;  // null: anything
    bool required;
  };

  State object(State from, const Json& schema, const std::string& path, bool outermost = false) {
    const Json *properties = schema.find("properties"), *more = schema.find("additionalProperties");
    if (properties != nullptr && properties->as_object() == nullptr)
      refuse(path, "properties", "expected an object, found " + properties->describe());
    if (const Json* rest = schema.find("unevaluatedProperties"))
      if (more != nullptr || rest->as_bool() == nullptr || *rest->as_bool())
        refuse(path, "unevaluatedProperties",
               "only false is supported, where there is no additionalProperties");
    std::vector<std::string> required = required_names(schema, path);
    std::unordered_set<std::string> missing(required.begin(), required.end());
    std::vector<Property> list;
    if (properties != nullptr)
      for (const JsonMember& one : *properties->as_object())
        list.push_back({one.key, &one.value, missing.erase(one.key) > 0});
    const bool closed = more != nullptr ? more->as_bool() != nullptr && !*more->as_bool()
                                        : properties != nullptr || !required.empty();
    const bool says_closed = more != nullptr && closed;
    for (const std::string& name : required) {
      if (missing.erase(name) == 0) continue;
      if (says_closed) return b_.add_state();  // nothing has it
      list.push_back({name, more, true});
    }
    check_sizes(schema, list, closed, path);
    if (json_.has_bare_keys(outermost))
      for (const Property& property : list)
        if (!is_bare_name(property.name))
          refuse(path, "properties",
                 fmt::format("'{}' cannot be written without quotes, as the model writes names",
                             printable(property.name)));
    if (notation_.has_sorted_keys) sort_by_name(&list);

    // Before each property twice: with nothing in the object, and with something, behind which a comma
    // stands.
    const std::string_view open_bracket = outermost ? "(" : "{";
    State empty = json_.space(b_.text(from, open_bracket)), begun = b_.add_state();
    const State open = b_.text(from, open_bracket);
    const State out = b_.add_state();
    bool any_required = false;
    for (const Property& property : list) {
      const Rule pair = b_.add_rule(path);
      State at = json_.space(json_.key(b_.begin(pair), property.name, outermost));
      at = property.schema != nullptr
               ? value(at, *property.schema, fmt::format("{}/properties/{}", path, property.name))
               : b_.call(at, any_value());
      b_.add_empty(at, b_.end(pair));
      const State next_empty = b_.add_state(), next_begun = b_.add_state();
      if (!any_required) b_.add_empty(b_.call(empty, pair), next_begun);
      b_.add_empty(b_.call(json_.comma(begun), pair), next_begun);
      if (property.required) {
        any_required = true;
      } else {
        b_.add_empty(empty, next_empty);
        b_.add_empty(begun, next_begun);
      }
      empty = next_empty;
      begun = next_begun;
    }
    if (!closed) {
      const Rule pair = b_.add_rule(path);
      std::vector<std::string> names;
      for (const Property& property : list) names.push_back(property.name);
      State at = json_.space(json_.other_key(b_.begin(pair), names, outermost));
      at = more != nullptr ? value(at, *more, path + "/additionalProperties") : b_.call(at, any_value());
      b_.add_empty(at, b_.end(pair));
      const State looped = b_.repeat(
          begun, [&](State here) { return b_.call(json_.comma(here), pair); }, 0, std::nullopt);
      b_.add_empty(json_.space(looped), out);
      if (!any_required) {
        const State first = b_.repeat(
            b_.call(empty, pair), [&](State here) { return b_.call(json_.comma(here), pair); }, 0,
            std::nullopt);
        b_.add_empty(json_.space(first), out);
      }
    } else {
      b_.add_empty(json_.space(begun), out);
    }
    if (!any_required) b_.add_empty(json_.space(open), out);
    return b_.text(out, outermost ? ")" : "}");
  }

  static void sort_by_name(std::vector<Property>* list) {
    std::stable_sort(list->begin(), list->end(), [&](const Property& a, const Property& b) {
      return lower_ascii(a.name) < lower_ascii(b.name);
    });
  }

  std::vector<std::string> required_names(const Json& schema, const std::string& path) const {
    std::vector<std::string> names;
    const Json* list = schema.find("required");
    if (list == nullptr) return names;
    if (list->as_array() == nullptr)
      refuse(path, "required", "expected a list of names, found " + list->describe());
    for (const Json& name : *list->as_array()) {
      if (name.as_string() == nullptr) refuse(path, "required", "expected a name, found " + name.describe());
      names.push_back(*name.as_string());
    }
    return names;
  }

  void check_sizes(const Json& schema, const std::vector<Property>& list, bool closed,
                   const std::string& path) const {
    const auto n_required = static_cast<size_t>(
        std::count_if(list.begin(), list.end(), [](const Property& one) { return one.required; }));
    if (const auto min = count(schema, "minProperties", path); min && *min > n_required)
      refuse(path, "minProperties", "not supported beyond the number of required properties");
    if (const auto max = count(schema, "maxProperties", path); max && (!closed || *max < list.size()))
      refuse(path, "maxProperties", "not supported below the number of properties, or where others may come");
  }

  GrammarBuilder& b_;
  const ValueNotation& notation_;
  JsonPieces json_;
  const std::string& where_;
  SchemaDocument document_;
  std::deque<Pending> pending_;
  std::unordered_map<const Json*, Rule> rules_;
  std::map<std::string, Rule> format_rules_;
  std::map<std::tuple<size_t, std::optional<size_t>, std::string_view>, Rule> text_rules_;
  int n_outer_ = 0;  // schemas that arguments() is in
  std::optional<Rule> any_value_;
};

}  // namespace

GrammarBuilder::Rule add_json_schema(GrammarBuilder& builder, const Json& schema, const std::string& where) {
  return add_json_schema(builder, schema, schema, "#", where);
}

GrammarBuilder::Rule add_json_schema(GrammarBuilder& builder, const Json& schema, const Json& part,
                                     const std::string& path, const std::string& where) {
  return SchemaCompiler(builder, schema, where).compile(part, path);
}

GrammarBuilder::Rule add_arguments(GrammarBuilder& builder, const Json& schema, const ValueNotation& notation,
                                   const std::string& where) {
  SchemaCompiler compiler(builder, schema, where, notation);
  return notation.is_call ? compiler.compile_call(schema) : compiler.compile(schema, "#");
}

Grammar compile_json_schema(const Json& schema, const std::string& where) {
  GrammarBuilder builder(where);
  const Rule root = add_json_schema(builder, schema, where);
  return builder.finish(root);
}

}  // namespace quern
