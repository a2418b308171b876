// Random text with what tokenizers treat each in its own way.
#pragma once

#include <random>
#include <string>

namespace quern::test {

// Up to `max_runs` short runs of like characters: letters of several scripts and cases, contractions, digits,
// white space, punctuation, marks, emoji, control characters. Well-formed UTF-8.
std::string random_text(std::mt19937& random, int max_runs);
// Any bytes.
std::string random_bytes(std::mt19937& random, size_t n);

}  // namespace quern::test
