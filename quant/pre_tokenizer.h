// Pre-tokenizers: how the text of a byte-level BPE vocabulary is cut into words before anything is merged
// (formats.md 3.7). A name of tokenizer.ggml.pre is a row here. Data only; runtime/tokenizer/word_splitter.h
// runs the patterns.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace quern {

// What a pattern makes of text of ASCII where a match is to begin, known without running it. Everything else
// is for the pattern to say, above all what lies beside characters beyond ASCII.
enum class AsciiWords : uint8_t {
  kNone,
  kLetters,  // an optional space and letters, up to what is no letter, are one match
  kWords,    // the same, and: a space and signs (not letters, digits, white space), up to a space, letter or
             // digit
  kCased,    // as kWords, but of letters only capitals and then small ones; not before an apostrophe
};

// Cuts every word that the steps before it left: what the pattern matches becomes a word, and so does what
// stands between two matches. A word is a text of its own: nothing around it is seen.
struct SplitStep {
  std::string_view pattern;  // as the model's own tokenizer states it; \s is Unicode's White_Space
  // The pattern sees the bytes of the text, each as the character of that number, as it stands behind a
  // ByteLevel step. Otherwise it sees characters.
  bool sees_bytes = false;
  AsciiWords ascii_words = AsciiWords::kNone;
};

// What the pieces of a vocabulary spell.
enum class PieceAlphabet : uint8_t {
  kByteLevel,    // bytes, each as one of GPT-2's 256 characters (quant/byte_level.h)
  kSpaceSymbol,  // characters, U+2581 for a space; other bytes are "<0xNN>"
};

// Words that are taken for the piece that spells them, whatever the merges would make of them.
enum class WholeWords : uint8_t { kNone, kAll, kLineBreaks };

struct PreTokenizer {
  std::string_view name;                      // tokenizer.ggml.pre, as `convert` writes it
  std::span<const std::string_view> aliases;  // other names of the same
  std::span<const SplitStep> steps;
  PieceAlphabet alphabet = PieceAlphabet::kByteLevel;
  WholeWords whole_words = WholeWords::kNone;
  bool add_bos = false;  // where a file does not say
};

// Steps of Hugging Face's tokenizers that are no patterns there: Punctuation in runs, and behind ByteLevel a
// number among the characters that bytes became.
inline constexpr std::string_view kPunctuationRuns = R"([\p{P}$+<=>^`|~]+)";
inline constexpr std::string_view kByteLevelNumber = R"([0-9\xB2\xB3\xB9\xBC-\xBE])";

std::span<const PreTokenizer> pre_tokenizers();
// By name or alias; null: unknown.
const PreTokenizer* find_pre_tokenizer(std::string_view name);
// Whether two patterns are one: line ends in them stand as bytes or as escapes.
bool is_same_pattern(std::string_view a, std::string_view b);

}  // namespace quern
