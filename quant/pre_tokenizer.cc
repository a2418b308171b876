// Patterns are those of the models' own tokenizers (tokenizer.json, tiktoken's pat_str); names, aliases and
// what a file leaves out are llama.cpp's, whose conversions wrote most files there are.
#include "quant/pre_tokenizer.h"

#include <algorithm>
#include <string>

namespace quern {
namespace {

using Names = std::span<const std::string_view>;
using enum AsciiWords;

// GPT-2 (openai/gpt-2 encoder.py, 2019), which the ByteLevel step of Hugging Face's tokenizers uses.
constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// Hugging Face's Digits step: each digit alone, or in runs.
constexpr std::string_view kEachDigit = R"(\p{N})";
constexpr std::string_view kThreeDigits = R"(\p{N}{1,3})";

constexpr SplitStep kGpt2Steps[] = {{kGpt2, false, kWords}};
constexpr SplitStep kDigitsGpt2Steps[] = {{kEachDigit}, {kGpt2, false, kWords}};

// cl100k (tiktoken), with another rule for digits in each family.
constexpr SplitStep kLlama3Steps[] = {
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     false, kWords}};
constexpr SplitStep kQwen2Steps[] = {
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     false, kWords}};
constexpr SplitStep kQwen35Steps[] = {
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     false, kWords}};
constexpr SplitStep kSeedCoderSteps[] = {
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)",
     false, kWords}};
constexpr SplitStep kBailingMoeSteps[] = {
    {R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)",
     false, kWords}};
constexpr SplitStep kExaoneMoeSteps[] = {
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)"}};
constexpr SplitStep kUfakzekaSteps[] = {
    {R"([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)", false, kWords}};
constexpr SplitStep kMiniCpm5Steps[] = {
    {kThreeDigits},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     false, kWords}};

// o200k (tiktoken), with contractions as suffixes and three digits, or without and one.
constexpr SplitStep kGpt4oSteps[] = {
    {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
     R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     false, kCased}};
constexpr SplitStep kTekkenSteps[] = {
    {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
     R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     false, kCased}};

// The letters are those of scripts with two cases.
constexpr SplitStep kDeepSeekLlmSteps[] = {
    {"[\r\n]"},
    {R"(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)",
     false, kLetters},
    {R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)"},
    {R"(\s+$)"},
    {R"([一-龥ࠀ-一가-퟿]+)"},
    {kEachDigit}};
constexpr SplitStep kDeepSeekCoderSteps[] = {{"[\r\n]"},
                                             {R"(\s?\p{L}+)", false, kLetters},
                                             {R"(\s?\p{P}+)"},
                                             {R"([一-龥ࠀ-一가-퟿]+)"},
                                             {kEachDigit}};
constexpr SplitStep kDeepSeekV3Steps[] = {
    {kThreeDigits},
    {R"([一-龥぀-ゟ゠-ヿ]+)"},
    {"[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
     "?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
     false, kWords}};

// Falcon: Punctuation (ASCII's and Unicode's) in runs, ByteLevel, then runs of numbers among the characters
// that bytes became, and threes of digits.
constexpr SplitStep kFalconSteps[] = {{kPunctuationRuns},
                                      {kGpt2, false, kWords},
                                      {R"([0-9\xB2\xB3\xB9\xBC-\xBE]+)", true},
                                      {"[0-9][0-9][0-9]", true}};
// What llama.cpp does with files that name no pre-tokenizer, and nobody else.
constexpr SplitStep kDefaultSteps[] = {
    {R"([\p{P}$+<=>^~|]+)"}, {kGpt2, false, kWords}, {R"(\p{N}+)"}, {"[0-9][0-9][0-9]"}};

// BLOOM; its own pattern has a class inside a class, here laid flat.
constexpr std::string_view kBloom = R"( ?[^(\s|.,!?…。，、।۔،)]+)";
constexpr SplitStep kBloomSteps[] = {{kBloom}};
constexpr SplitStep kVikingSteps[] = {{kBloom}, {kEachDigit}};

// Merges run over whole lines.
constexpr SplitStep kLineSteps[] = {{"[^\\n]+|[\\n]+"}};

constexpr std::string_view kGpt2Names[] = {
    "phi-2",       "jina-es", "jina-de", "gigachat", "jina-v2-es",  "jina-v2-de", "a.x-4.0",     "mellum",
    "modern-bert", "exaone4", "jais",    "trillion", "roberta-bpe", "jina-v1-en", "jina-v2-code"};
constexpr std::string_view kLlamaBpeNames[] = {"llama3",  "llama-v3", "falcon3", "falcon-h1",
                                               "pixtral", "midm-2.0", "lfm2",    "jina-v5-nano"};
constexpr std::string_view kQwen2Names[] = {"deepseek-r1-qwen", "kormo",      "f2llmv2", "megrez",
                                            "hunyuan",          "solar-open", "grok-2"};
constexpr std::string_view kSmolLmNames[] = {"codeshell", "minerva-7b", "mellum2"};
constexpr std::string_view kDeepSeekV3Names[] = {"hunyuan-dense", "joyai-llm", "hy_v4"};
constexpr std::string_view kGpt4oNames[] = {"llama4", "kanana2", "talkie", "minimax-m2"};
constexpr std::string_view kDbrxNames[] = {"smaug-bpe"};
constexpr std::string_view kBailingMoeNames[] = {"bailingmoe2", "llada-moe"};
constexpr std::string_view kGlm4Names[] = {"glm5"};
constexpr std::string_view kBloomNames[] = {"poro-chat", "gpt3-finnish"};

constexpr auto kByteLevel = PieceAlphabet::kByteLevel;
constexpr auto kSpaceSymbol = PieceAlphabet::kSpaceSymbol;
constexpr auto kAll = WholeWords::kAll;

constexpr PreTokenizer kRows[] = {
    // name, aliases, steps, alphabet, whole words, add_bos
    {"default", {}, kDefaultSteps},
    {"gpt-2", kGpt2Names, kGpt2Steps},
    {"llama-bpe", kLlamaBpeNames, kLlama3Steps, kByteLevel, kAll, true},
    {"qwen2", kQwen2Names, kQwen2Steps},
    {"qwen35", {}, kQwen35Steps},
    {"smollm", kSmolLmNames, kDigitsGpt2Steps},
    {"deepseek-llm", {}, kDeepSeekLlmSteps},
    {"deepseek-coder", {}, kDeepSeekCoderSteps},
    {"deepseek-v3", kDeepSeekV3Names, kDeepSeekV3Steps},
    {"tekken", {}, kTekkenSteps, kByteLevel, kAll, true},
    {"gpt-4o", kGpt4oNames, kGpt4oSteps},
    {"falcon", {}, kFalconSteps},
    {"mpt", {}, kGpt2Steps},
    {"starcoder", {}, kDigitsGpt2Steps},
    {"refact", {}, kDigitsGpt2Steps},
    {"command-r", {}, kDigitsGpt2Steps},
    {"olmo", {}, kGpt2Steps},
    {"stablelm2", {}, kQwen2Steps},
    {"exaone", {}, kDigitsGpt2Steps},
    {"exaone-moe", {}, kExaoneMoeSteps},
    {"chatglm-bpe", {}, kLlama3Steps},
    {"glm4", kGlm4Names, kLlama3Steps, kByteLevel, kAll},
    {"dbrx", kDbrxNames, kLlama3Steps},
    {"seed-coder", {}, kSeedCoderSteps},
    {"bailingmoe", kBailingMoeNames, kBailingMoeSteps},
    {"minicpm5", {}, kMiniCpm5Steps, kByteLevel, kAll},
    {"ufakzeka", {}, kUfakzekaSteps},
    {"granite-docling", {}, kGpt2Steps},
    {"bloom", kBloomNames, kBloomSteps},
    {"viking", {}, kVikingSteps},
    {"gemma4", {}, kLineSteps, kSpaceSymbol, WholeWords::kLineBreaks, true},
};

std::string with_escaped_line_ends(std::string_view pattern) {
  std::string out;
  for (const char c : pattern) c == '\r' ? out += "\\r" : c == '\n' ? out += "\\n" : out += c;
  return out;
}

}  // namespace

bool is_same_pattern(std::string_view a, std::string_view b) {
  return with_escaped_line_ends(a) == with_escaped_line_ends(b);
}

std::span<const PreTokenizer> pre_tokenizers() { return kRows; }

const PreTokenizer* find_pre_tokenizer(std::string_view name) {
  const auto row = std::find_if(std::begin(kRows), std::end(kRows), [name](const PreTokenizer& candidate) {
    return candidate.name == name ||
           std::find(candidate.aliases.begin(), candidate.aliases.end(), name) != candidate.aliases.end();
  });
  return row == std::end(kRows) ? nullptr : row;
}

}  // namespace quern
