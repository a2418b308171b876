#include "runtime/tokenizer/nfc.h"

#include <algorithm>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "quant/utf8.h"

namespace quern {
namespace {

struct Decomposition {
  uint32_t character, first, second;
  bool composes;
};
struct CombiningRange {
  uint32_t first, last;
  uint8_t combining_class;
};
#include "runtime/tokenizer/nfc_tables.inc"

// Below this every character is in form C whatever stands beside it, but for marks that follow.
constexpr uint32_t kFirstMark = 0x300;

// Hangul: a syllable is of a leading consonant, a vowel, and perhaps a trailing consonant.
constexpr uint32_t kSyllables = 0xAC00, kLeading = 0x1100, kVowels = 0x1161, kTrailing = 0x11A7;
constexpr uint32_t kNLeading = 19, kNVowels = 21, kNTrailing = 28,
                   kNSyllables = kNLeading * kNVowels * kNTrailing;

struct Character {
  uint32_t code;
  uint8_t combining_class;
};

uint8_t combining_class(uint32_t code) {
  if (code < kFirstMark) return 0;
  const auto range =
      std::lower_bound(std::begin(kCombiningRanges), std::end(kCombiningRanges), code,
                       [](const CombiningRange& a, uint32_t wanted) { return a.last < wanted; });
  return range != std::end(kCombiningRanges) && range->first <= code ? range->combining_class : uint8_t{0};
}

const Decomposition* find_decomposition(uint32_t code) {
  const auto found =
      std::lower_bound(std::begin(kDecompositions), std::end(kDecompositions), code,
                       [](const Decomposition& a, uint32_t wanted) { return a.character < wanted; });
  return found != std::end(kDecompositions) && found->character == code ? found : nullptr;
}

uint64_t pair_of(uint32_t first, uint32_t second) { return uint64_t{first} << 32 | second; }

const std::unordered_map<uint64_t, uint32_t>& compositions() {
  static const std::unordered_map<uint64_t, uint32_t> all = [] {
    std::unordered_map<uint64_t, uint32_t> pairs;
    for (const Decomposition& entry : kDecompositions)
      if (entry.composes) pairs.emplace(pair_of(entry.first, entry.second), entry.character);
    return pairs;
  }();
  return all;
}

// 0: the two do not compose.
uint32_t compose(uint32_t first, uint32_t second) {
  if (first - kLeading < kNLeading && second - kVowels < kNVowels)
    return kSyllables + ((first - kLeading) * kNVowels + second - kVowels) * kNTrailing;
  const uint32_t syllable = first - kSyllables;
  if (syllable < kNSyllables && syllable % kNTrailing == 0 && second > kTrailing &&
      second < kTrailing + kNTrailing)
    return first + second - kTrailing;
  const auto found = compositions().find(pair_of(first, second));
  return found == compositions().end() ? 0 : found->second;
}

void decompose(uint32_t code, std::vector<Character>* out) {
  if (const uint32_t syllable = code - kSyllables; syllable < kNSyllables) {
    out->push_back({kLeading + syllable / (kNVowels * kNTrailing), 0});
    out->push_back({kVowels + syllable / kNTrailing % kNVowels, 0});
    if (syllable % kNTrailing != 0) out->push_back({kTrailing + syllable % kNTrailing, 0});
  } else if (const Decomposition* const entry = code < 0xC0 ? nullptr : find_decomposition(code)) {
    decompose(entry->first, out);
    if (entry->second != 0) decompose(entry->second, out);
  } else {
    out->push_back({code, combining_class(code)});
  }
}

// Marks behind a letter, by their class.
void order_marks(std::vector<Character>* characters) {
  const auto is_mark = [](const Character& character) { return character.combining_class != 0; };
  for (auto at = characters->begin(); at != characters->end();) {
    const auto begin = std::find_if(at, characters->end(), is_mark);
    const auto end = std::find_if_not(begin, characters->end(), is_mark);
    std::stable_sort(begin, end, [](const Character& a, const Character& b) {
      return a.combining_class < b.combining_class;
    });
    at = end;
  }
}

// Characters without malformed bytes between them: composed, and appended to `out`.
void compose_run(std::vector<Character>* characters, std::string* out) {
  order_marks(characters);
  std::vector<Character>& run = *characters;
  size_t n = 0;                // kept so far
  size_t letter = run.size();  // place of the last character of class 0 among those kept; none yet
  uint8_t last_class = 0;      // of what was kept behind it
  for (const Character character : std::vector<Character>(run)) {
    const bool is_adjacent = letter + 1 == n;
    const bool is_blocked = !is_adjacent && last_class >= character.combining_class;
    const uint32_t composed =
        letter == run.size() || is_blocked ? 0 : compose(run[letter].code, character.code);
    if (composed != 0) {
      run[letter].code = composed;
      continue;
    }
    if (character.combining_class == 0) letter = n;
    last_class = character.combining_class;
    run[n++] = character;
  }
  for (size_t i = 0; i < n; ++i) append_utf8(run[i].code, out);
  run.clear();
}

// Whether a character alone shows that a text may be out of form C.
bool is_suspicious(uint32_t code) {
  if (code < kFirstMark) return false;
  if (combining_class(code) != 0 || code - kVowels < kNVowels ||
      (code > kTrailing && code < kTrailing + kNTrailing)) {
    return true;
  }
  if (const Decomposition* const entry = find_decomposition(code)) return !entry->composes;
  // Vowel signs of class 0 that compose with what stands before them.
  static const std::vector<uint32_t> seconds = [] {
    std::vector<uint32_t> codes;
    for (const Decomposition& entry : kDecompositions)
      if (entry.composes && combining_class(entry.second) == 0) codes.push_back(entry.second);
    std::sort(codes.begin(), codes.end());
    return codes;
  }();
  return std::binary_search(seconds.begin(), seconds.end(), code);
}

bool may_need_work(std::string_view text) {
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    // Two-byte characters below U+0300 begin with bytes up to CB.
    if (length > 1 && static_cast<uint8_t>(text[0]) >= 0xCC &&
        is_suspicious(code_point(text.substr(0, length))))
      return true;
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return false;
}

}  // namespace

std::optional<std::string> to_nfc(std::string_view text) {
  if (!may_need_work(text)) return std::nullopt;
  std::string out;
  out.reserve(text.size());
  std::vector<Character> run;
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    if (length == 0) {
      compose_run(&run, &out);
      out += text[0];
      text.remove_prefix(1);
      continue;
    }
    decompose(code_point(text.substr(0, length)), &run);
    text.remove_prefix(length);
  }
  compose_run(&run, &out);
  return out;
}

}  // namespace quern
