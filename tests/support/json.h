// JSON for tests: what a command printed or a file of golden values holds. Read and written by nlohmann-json,
// which quern's own reader (quant/json/) is not asked about itself; that library's header, which takes longer
// to compile than most tests, is in json.cc alone.
#pragma once

#include <compare>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace quern::test {

// A value, null at first. Members keep their order, and count in it when two are compared.
class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;

  Json() = default;
  template <class T>
  requires std::is_arithmetic_v<T> Json(T value) {
    if constexpr (std::same_as<T, bool>)
      value_ = value;
    else if constexpr (std::floating_point<T>)
      value_ = static_cast<double>(value);
    else if (std::cmp_greater(value, INT64_MAX))
      value_ = static_cast<uint64_t>(value);
    else
      value_ = static_cast<int64_t>(value);
  }
  Json(std::string value) : value_(std::move(value)) {}
  Json(std::string_view value) : Json(std::string(value)) {}
  Json(const char* value) : Json(std::string(value)) {}
  template <class T>
  Json(const std::vector<T>& values) : value_(Array(values.begin(), values.end())) {}

  static Json array(std::initializer_list<Json> elements = {});
  static Json object(std::initializer_list<std::pair<const char*, Json>> members = {});
  // Throws std::runtime_error where the text is no JSON.
  static Json parse(std::string_view text);
  static Json read(const std::string& path);  // of a file

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_object() const { return std::holds_alternative<Object>(value_); }
  // Elements or members; 0 for what has none.
  size_t size() const;
  bool empty() const { return size() == 0; }
  bool contains(std::string_view key) const;

  // The member, the element; throws std::runtime_error, which names it, where there is none.
  const Json& operator[](std::string_view key) const;
  const Json& operator[](const char* key) const { return (*this)[std::string_view(key)]; }
  const Json& operator[](std::integral auto index) const { return element(static_cast<size_t>(index)); }
  // A new member of an object, or of a null, which becomes one.
  void add(std::string key, Json value);

  // Of an array; throws for others.
  Array::const_iterator begin() const { return elements().begin(); }
  Array::const_iterator end() const { return elements().end(); }
  const Array& elements() const;
  const Object& members() const;

  // As bool, a number, a string, or a vector of these. Throws std::runtime_error for another type, and for a
  // number that does not fit.
  template <class T>
  T get() const {
    if constexpr (std::same_as<T, bool>) {
      return boolean();
    } else if constexpr (std::floating_point<T>) {
      return static_cast<T>(number());
    } else if constexpr (std::integral<T>) {
      return std::is_signed_v<T> ? static_cast<T>(integer()) : static_cast<T>(unsigned_integer());
    } else if constexpr (std::same_as<T, std::string>) {
      return string();
    } else {
      T values;
      for (const Json& element : elements()) values.push_back(element.get<typename T::value_type>());
      return values;
    }
  }
  template <class T>
  requires(std::is_arithmetic_v<T> || std::same_as<T, std::string> || std::same_as<T, std::vector<int>> ||
           std::same_as<T, std::vector<double>>)
  operator T() const {
    return get<T>();
  }
  // The member, or `otherwise` where there is none.
  template <class T>
  T value(std::string_view key, T otherwise) const {
    return contains(key) ? (*this)[key].get<T>() : otherwise;
  }

  // Calls f with what is held: std::monostate for null, bool, int64_t, uint64_t, double, std::string, Array
  // or Object.
  template <class F>
  auto visit(F&& f) const {
    return std::visit(f, value_);
  }
  // On one line. Throws std::runtime_error where a string is no UTF-8; printing to a stream does not.
  std::string dump() const;

  // Numbers are compared by their values, whatever their types.
  friend bool operator==(const Json& a, const Json& b);
  friend std::partial_ordering operator<=>(const Json& a, const Json& b);  // of numbers
  template <class T>
  requires(!std::same_as<T, Json> && std::constructible_from<Json, const T&>) friend bool operator==(
      const Json& a, const T& b) {
    return a == Json(b);
  }
  template <class T>
  requires std::is_arithmetic_v<T>
  friend std::partial_ordering operator<=>(const Json& a, const T& b) { return a <=> Json(b); }
  friend std::ostream& operator<<(std::ostream& out, const Json& json);

 private:
  const Json& element(size_t index) const;
  bool boolean() const;
  double number() const;
  int64_t integer() const;
  uint64_t unsigned_integer() const;
  const std::string& string() const;

  std::variant<std::monostate, bool, int64_t, uint64_t, double, std::string, Array, Object> value_;
};

}  // namespace quern::test
