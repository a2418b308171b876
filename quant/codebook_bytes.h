// The codebooks of IQ1, IQ2 and IQ3 (quant/formats/grid_*.h) as kernels look them up: the weights of an entry
// as bytes of one word, the first weight lowest. Plain data, for files that are compiled for one instruction
// set.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quern {

template <class Word, size_t kEntries>
struct CodebookBytes {
  Word entries[kEntries];
};

// Eight weights of 8, 25 or 43.
extern const CodebookBytes<uint64_t, 256> kIq2XxsBytes;
extern const CodebookBytes<uint64_t, 512> kIq2XsBytes;
extern const CodebookBytes<uint64_t, 1024> kIq2SBytes;
// Four weights: of IQ3_XXS 4, 12 .. 62, of IQ3_S 1, 3 .. 15.
extern const CodebookBytes<uint32_t, 256> kIq3XxsBytes;
extern const CodebookBytes<uint32_t, 512> kIq3SBytes;
// Eight weights of -1, 0 or 1, times 8.
extern const CodebookBytes<uint64_t, 2048> kIq1Bytes;
// What a byte of NVFP4's scales stands for, halved (formats.md 2.6).
extern const CodebookBytes<float, 256> kNvfp4Scales;

}  // namespace quern
