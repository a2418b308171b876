// Numbers and id lists as people type them, read strictly: the whole text, decimal, in range.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "quant/vocabulary.h"

namespace quern {

// The functions throw kUsage "<what>: '<text>' is not ..." for anything but plain decimal digits (with a
// minus sign where min < 0) within [min, max]: "12abc", "1e9", "", " 1", "+1" and "0x10" are all refused.
int64_t parse_integer(std::string_view what, std::string_view text, int64_t min, int64_t max);
uint64_t parse_unsigned(std::string_view what, std::string_view text, uint64_t min, uint64_t max);
// Bytes of a file: digits, and K, M or G behind them for powers of 1000 ("4G", "4GB"), of 1024 with an i
// ("4GiB"). Throws kUsage for anything else, 0 and more than 2^62.
uint64_t parse_bytes(std::string_view what, std::string_view text);
// Decimal or scientific notation; finite, within [min, max].
double parse_number(std::string_view what, std::string_view text, double min, double max);

// "1,2,3": integers separated by commas or spaces; at least one.
std::vector<int64_t> parse_integers(std::string_view what, std::string_view text, int64_t min, int64_t max);
std::vector<TokenId> parse_ids(std::string_view what, std::string_view text);

}  // namespace quern
