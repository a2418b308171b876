#include "runtime/tokenizer/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <new>

#include "quant/error.h"

namespace quern {
namespace {

// Unicode's White_Space (PropList.txt, unchanged since Unicode 6.3).
constexpr std::string_view kWhiteSpace =
    R"(\x09-\x0D\x20\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

// PCRE2's own default is ten million steps of one match; the patterns of the table take a few a character. A
// step of an interpreted match takes up to about 200 bytes.
constexpr uint32_t kMatchLimit = 100'000'000;
constexpr uint32_t kHeapLimitKib = 256 * 1024;
// Beyond the 32 KiB of the machine's stack that compiled matches take first.
constexpr size_t kJitStackBytes = size_t{16} << 20;

template <auto free>
struct Free {
  template <class T>
  void operator()(T* pointer) const {
    free(pointer);
  }
};
using MatchContext = std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Free<pcre2_jit_stack_free>>;

template <class T>
T* allocated(T* pointer) {
  if (pointer == nullptr) throw std::bad_alloc();
  return pointer;
}

std::string message_of(int error) {
  PCRE2_UCHAR text[128] = {};
  pcre2_get_error_message(error, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

std::string with_white_space_of_unicode(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c != '\\' || i + 1 == pattern.size()) {
      if (c == '[') in_class = true;
      if (c == ']') in_class = false;
      out += c;
      continue;
    }
    const char escaped = pattern[++i];
    if (escaped == 's') {
      out += in_class ? std::string(kWhiteSpace) : fmt::format("[{}]", kWhiteSpace);
    } else if (escaped == 'S') {
      QUERN_CHECK(!in_class);  // a class cannot be taken out of a class
      out += fmt::format("[^{}]", kWhiteSpace);
    } else {
      out += c;
      out += escaped;
    }
  }
  return out;
}

struct Pattern::Code {
  std::unique_ptr<pcre2_code, Free<pcre2_code_free>> code;
  bool is_machine_code = false;
};

Pattern::Pattern(std::string_view pattern, Sees sees) : code_(std::make_unique<Code>()) {
  const std::string text = with_white_space_of_unicode(pattern);
  const uint32_t options = sees == Sees::kBytes ? 0 : PCRE2_UTF | PCRE2_UCP;
  int error = 0;
  size_t at = 0;
  code_->code.reset(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), options, &error, &at, nullptr));
  if (code_->code == nullptr) {
    fail(ErrorCode::kResource, "PCRE2 does not compile '{}': {} at {}", printable(text, 512),
         message_of(error), at);
  }
  // Where memory cannot be made executable, or the processor is not known, matches are interpreted.
  code_->is_machine_code = pcre2_jit_compile(code_->code.get(), PCRE2_JIT_COMPLETE) == 0;
}

Pattern::Pattern(Pattern&&) noexcept = default;
Pattern::~Pattern() = default;

bool Pattern::matches(std::string_view text) const {
  size_t begin = 0, end = 0;
  return PatternSearch().find(*this, text, 0, &begin, &end);
}

struct PatternSearch::Room {
  MatchContext context;
  MatchData match;
  JitStack jit_stack;
};

PatternSearch::PatternSearch() : room_(std::make_unique<Room>()) {
  room_->context.reset(allocated(pcre2_match_context_create(nullptr)));
  room_->match.reset(allocated(pcre2_match_data_create(1, nullptr)));
  pcre2_set_match_limit(room_->context.get(), kMatchLimit);
  pcre2_set_heap_limit(room_->context.get(), kHeapLimitKib);
}

PatternSearch::~PatternSearch() = default;

bool PatternSearch::find(const Pattern& pattern, std::string_view text, size_t from, size_t* begin,
                         size_t* end) {
  int result = match(pattern, text, from);
  if (result == PCRE2_ERROR_JIT_STACKLIMIT && room_->jit_stack == nullptr) {
    room_->jit_stack.reset(allocated(pcre2_jit_stack_create(64 * 1024, kJitStackBytes, nullptr)));
    pcre2_jit_stack_assign(room_->context.get(), nullptr, room_->jit_stack.get());
    result = match(pattern, text, from);
  }
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result == PCRE2_ERROR_MATCHLIMIT || result == PCRE2_ERROR_HEAPLIMIT ||
      result == PCRE2_ERROR_JIT_STACKLIMIT) {
    fail(ErrorCode::kResource,
         "a stretch of {} bytes of text is too much work to cut into words ({}); shorten it",
         text.size() - from, message_of(result));
  }
  QUERN_CHECK(result >= 0);  // 0: groups of the pattern found no room, and are not asked for
  const size_t* const found = pcre2_get_ovector_pointer(room_->match.get());
  *begin = found[0];
  *end = found[1];
  return true;
}

int PatternSearch::match(const Pattern& pattern, std::string_view text, size_t from) {
  const auto run = pattern.code_->is_machine_code ? pcre2_jit_match : pcre2_match;
  return run(pattern.code_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
             PCRE2_NO_UTF_CHECK, room_->match.get(), room_->context.get());
}

}  // namespace quern
