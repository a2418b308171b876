// sentencepiece's precompiled_charsmap: which characters of a text become which others.
//
// Source: google/sentencepiece, src/normalizer.cc (Normalizer::DecodePrecompiledCharsMap), and darts-clone's
// double array (Aoe, "An efficient digital search algorithm by using a double-array structure", IEEE TSE
// 1989).
#pragma once

#include <string>
#include <string_view>

namespace quern {

// The library follows the map without looking where it leads: throws kMalformed "<where>: ..." unless every
// place that a text can lead to lies inside. An empty map is none.
void check_charsmap(std::string_view charsmap, const std::string& where);

}  // namespace quern
