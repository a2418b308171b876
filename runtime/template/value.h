// The values that a template works with: Python's, as far as templates see them.
//
// Numbers, none and strings are values; everything else is an Object that belongs to the rendering and lives
// until its end (so that a cycle is no leak and no destructor recurses). Strings are counted. A rendering is
// one thread's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/template/text.h"

namespace quern::jinja {

class Interpreter;
class Object;

// An immutable Text, shared. Markup is what the filters `safe` and `escape` give: adding to it escapes.
class String {
 public:
  explicit String(Text text, bool markup = false) : node_(new Node{std::move(text), markup}) {}
  String(const String& other) noexcept : node_(other.node_) { ++node_->n_owners; }
  String(String&& other) noexcept : node_(other.node_) { ++node_->n_owners; }
  String& operator=(String other) noexcept {
    std::swap(node_, other.node_);
    return *this;
  }
  ~String() {
    if (--node_->n_owners == 0) delete node_;
  }

  const Text& text() const { return node_->text; }
  std::string_view bytes() const { return node_->text.bytes(); }
  bool is_markup() const { return node_->markup; }
  size_t n_chars() const;
  bool is_ascii() const { return n_chars() == node_->text.size(); }

 private:
  friend class Value;
  struct Node {
    Text text;
    bool markup;
    uint32_t n_owners = 1;
    size_t n_chars = SIZE_MAX;  // not counted yet
  };
  explicit String(Node* node) noexcept : node_(node) { ++node_->n_owners; }

  Node* node_;
};

class Value {
 public:
  enum class Kind : uint8_t { kUndefined, kNone, kBool, kInt, kFloat, kString, kObject };

  Value() noexcept : kind_(Kind::kNone) { payload_.integer = 0; }  // none
  Value(const Value& other) noexcept : kind_(other.kind_), payload_(other.payload_) { retain(); }
  Value(Value&& other) noexcept : kind_(other.kind_), payload_(other.payload_) { other.kind_ = Kind::kNone; }
  Value& operator=(Value other) noexcept {
    std::swap(kind_, other.kind_);
    std::swap(payload_, other.payload_);
    return *this;
  }
  ~Value() { release(); }

  // `message`: what is raised when more is done with the value than jinja2 allows.
  static Value undefined(std::string message);
  static Value boolean(bool value) noexcept { return Value(Kind::kBool, {.integer = value ? 1 : 0}); }
  static Value integer(int64_t value) noexcept { return Value(Kind::kInt, {.integer = value}); }
  static Value number(double value) noexcept { return Value(Kind::kFloat, {.number = value}); }
  static Value string(const String& value) noexcept;
  static Value string(Text text, bool markup = false) { return string(String(std::move(text), markup)); }
  static Value string(std::string bytes, Origin origin) { return string(Text(std::move(bytes), origin)); }
  static Value object(Object* object) noexcept { return Value(Kind::kObject, {.object = object}); }

  Kind kind() const { return kind_; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_bool() const { return kind_ == Kind::kBool; }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_float() const { return kind_ == Kind::kFloat; }
  bool is_whole() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }  // Python's int
  bool is_number() const { return is_whole() || is_float(); }

  bool as_bool() const { return payload_.integer != 0; }
  int64_t as_integer() const { return payload_.integer; }  // of what is_whole()
  double as_number() const {                               // of what is_number()
    return is_float() ? payload_.number : static_cast<double>(payload_.integer);
  }
  String as_string() const { return String(payload_.string); }
  const Text& as_text() const { return payload_.string->text; }
  std::string_view bytes() const { return payload_.string->text.bytes(); }
  bool is_markup() const { return is_string() && payload_.string->markup; }
  const std::string& undefined_message() const;
  Object* as_object() const { return kind_ == Kind::kObject ? payload_.object : nullptr; }
  // The object when it is a T, else null.
  template <class T>
  T* as() const;

  // `a is b`: the same object, or equal small values of one kind.
  bool is_same(const Value& other) const;

 private:
  union Payload {
    int64_t integer;
    double number;
    String::Node* string;  // of an undefined value: its message
    Object* object;
  };
  Value(Kind kind, Payload payload) noexcept : kind_(kind), payload_(payload) {}
  bool is_counted() const { return kind_ == Kind::kString || kind_ == Kind::kUndefined; }
  void retain() const noexcept {
    if (is_counted()) ++payload_.string->n_owners;
  }
  void release() const noexcept {
    if (is_counted() && --payload_.string->n_owners == 0) delete payload_.string;
  }

  Kind kind_;
  Payload payload_;
};

// A step of a rendering pays for this many keywords that are gone through for one name.
inline constexpr size_t kKeywordsPerStep = 8;

// What stands between the parentheses of a call.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<String, Value>> keywords;

  const Value* keyword(std::string_view name) const;
};

enum class ObjectType : uint8_t {
  kList,
  kTuple,
  kDict,
  kRange,
  kIterator,
  kDictView,
  kNamespace,
  kLoop,
  kMacro,
  kFunction,
  kCycler,
  kJoiner
};

// What templates can do with a value that is neither a number nor a string.
class Object {
 public:
  explicit Object(ObjectType type) : type_(type) {}
  virtual ~Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  ObjectType type() const { return type_; }
  virtual std::string_view type_name() const = 0;              // Python's: "dict"
  virtual std::string_view type_module() const { return ""; }  // "jinja2.runtime."; empty for Python's own
  virtual bool truth() const;                                  // its length's, or true
  virtual std::optional<size_t> length() const { return std::nullopt; }
  virtual bool is_iterable() const { return false; }
  // The values that a loop visits. A generator gives each of them once.
  virtual std::vector<Value> iterate() { return {}; }
  virtual bool is_callable() const { return false; }
  virtual Value call(Interpreter& in, Arguments& arguments);
  // x[key], and x.name as Python has it; absent where Python raises LookupError, TypeError or AttributeError.
  virtual std::optional<Value> item(Interpreter&, const Value&) { return std::nullopt; }
  virtual std::optional<Value> attribute(Interpreter&, std::string_view) { return std::nullopt; }
  virtual bool has_items() const { return false; }  // x[...] is defined for some key
  // Appends repr(x).
  virtual void print(Interpreter& in, Text* out, int depth) = 0;

 private:
  ObjectType type_;
};

template <class T>
T* Value::as() const {
  Object* object = as_object();
  return object != nullptr && T::is(object->type()) ? static_cast<T*>(object) : nullptr;
}

// "dict", "NoneType", "Undefined".
std::string_view type_name(const Value& value);
// "dict object", "None", "jinja2.utils.Namespace object": what messages about missing attributes name.
std::string type_description(const Value& value);
bool truth(const Value& value);

}  // namespace quern::jinja
