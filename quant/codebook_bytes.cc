#include "quant/codebook_bytes.h"

#include "quant/formats/codebooks.h"
#include "quant/formats/grid_iq1.h"
#include "quant/formats/grid_iq2_s.h"
#include "quant/formats/grid_iq2_xs.h"
#include "quant/formats/grid_iq2_xxs.h"
#include "quant/formats/grid_iq3_s.h"
#include "quant/formats/grid_iq3_xxs.h"
#include "quant/formats/ue4m3.h"

namespace quern {
namespace {

// weight(code) of the kBits bits of each weight of an entry.
template <class Word, size_t kBits, size_t kEntries, class Weight>
consteval CodebookBytes<Word, kEntries> bytes_of(const uint16_t (&grid)[kEntries], Weight weight) {
  CodebookBytes<Word, kEntries> bytes{};
  for (size_t i = 0; i < kEntries; ++i)
    for (size_t k = 0; k < sizeof(Word); ++k) {
      const int value = weight(grid[i] >> kBits * k & ((1 << kBits) - 1));
      bytes.entries[i] |= static_cast<Word>(static_cast<uint8_t>(value)) << 8 * k;
    }
  return bytes;
}

template <size_t kEntries>
consteval CodebookBytes<uint64_t, kEntries> pairs_of(const uint16_t (&grid)[kEntries]) {
  return bytes_of<uint64_t, 2>(grid, [](int code) { return formats::kIq2Values[code]; });
}

consteval CodebookBytes<float, 256> ue4m3_halves() {
  CodebookBytes<float, 256> halves{};
  for (size_t i = 0; i < 256; ++i) halves.entries[i] = formats::half_of_ue4m3(static_cast<uint8_t>(i));
  return halves;
}

}  // namespace

constinit const CodebookBytes<uint64_t, 256> kIq2XxsBytes = pairs_of(formats::kIq2XxsGrid);
constinit const CodebookBytes<uint64_t, 512> kIq2XsBytes = pairs_of(formats::kIq2XsGrid);
constinit const CodebookBytes<uint64_t, 1024> kIq2SBytes = pairs_of(formats::kIq2SGrid);
constinit const CodebookBytes<uint32_t, 256> kIq3XxsBytes =
    bytes_of<uint32_t, 4>(formats::kIq3XxsGrid, [](int code) { return formats::kIq3XxsValues[code]; });
constinit const CodebookBytes<uint32_t, 512> kIq3SBytes =
    bytes_of<uint32_t, 4>(formats::kIq3SGrid, [](int code) { return formats::kIq3SValues[code]; });
constinit const CodebookBytes<uint64_t, 2048> kIq1Bytes =
    bytes_of<uint64_t, 2>(formats::kIq1Grid, [](int code) { return 8 * (code - 1); });
constinit const CodebookBytes<float, 256> kNvfp4Scales = ue4m3_halves();

}  // namespace quern
