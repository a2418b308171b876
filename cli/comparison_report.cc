#include "cli/comparison_report.h"

#include <fmt/format.h>

namespace quern {
namespace {

// "99.9%", "10.0%", " 0.1%": as wide as a word of the same column.
std::string percent_label(double fraction) { return fmt::format("{:>4.1f}%", 100 * fraction); }

std::string percent(const Estimate& e, int error_width) {
  return fmt::format("{:6.3f} ± {:{}.3f} %", 100 * e.value, 100 * e.error, error_width);
}

std::string perplexity_block(const KlSummary& s) {
  std::string text = "====== Perplexity statistics ======\n";
  const auto line = [&](std::string_view name, const Estimate& e) {
    text += fmt::format("{:<30}: {:10.6f} ± {:10.6f}\n", name, e.value, e.error);
  };
  line("Mean PPL(Q)", s.perplexity);
  line("Mean PPL(base)", s.perplexity_base);
  text += fmt::format("{:<30}: {:6.2f}%\n", "Cor(ln(PPL(Q)), ln(PPL(base)))", 100 * s.correlation);
  line("Mean ln(PPL(Q)/PPL(base))", s.log_ratio);
  line("Mean PPL(Q)/PPL(base)", s.ratio);
  line("Mean PPL(Q)-PPL(base)", s.difference);
  return text;
}

// Maximum, percentiles with the median in the middle, minimum.
template <size_t N, class Line>
void add_ordered(const std::array<double, N>& fractions, const std::array<double, N>& values, double max,
                 double median, double min, const Line& line) {
  line("Maximum", max);
  for (size_t i = 0; i < N; ++i) {
    if (i > 0 && fractions[i - 1] > 0.5 && fractions[i] < 0.5) line("Median", median);
    line(percent_label(fractions[i]), values[i]);
  }
  line("Minimum", min);
}

std::string kl_block(const KlSummary& s) {
  std::string text = "====== KL divergence statistics ======\n";
  text += fmt::format("{:<7} KLD: {:10.6f} ± {:10.6f}\n", "Mean", s.kl.value, s.kl.error);
  add_ordered(KlSummary::kKlFractions, s.kl_percentiles, s.kl_max, s.kl_median, s.kl_min,
              [&](std::string_view name, double value) {
                text += fmt::format("{:<7} KLD: {:10.6f}\n", name, value);
              });
  return text;
}

std::string probability_block(const KlSummary& s) {
  std::string text = "====== Token probability statistics ======\n";
  text += fmt::format("{:<7} Δp: {}\n", "Mean", percent(s.p_diff, 5));
  add_ordered(KlSummary::kDiffFractions, s.p_diff_percentiles, s.p_diff_max, s.p_diff_median, s.p_diff_min,
              [&](std::string_view name, double value) {
                text += fmt::format("{:<7} Δp: {:6.3f}%\n", name, 100 * value);
              });
  text += fmt::format("RMS Δp    : {}\n", percent(s.p_diff_rms, 5));
  text += fmt::format("Same top p: {}\n", percent(s.same_top, 5));
  return text;
}

constexpr size_t kRowWidth = 120;  // of comparison_row with all columns

}  // namespace

std::string comparison_header(size_t width) {
  if (width < kRowWidth) return "chunk             PPL             KL Divergence           Same top p\n";
  return "chunk             PPL               ln(PPL(Q)/PPL(base))          KL Divergence              Δp "
         "RMS  "
         "          Same top p\n";
}

std::string comparison_row(uint64_t chunk, const KlSummary& s, size_t width) {
  const std::string perplexity =
      fmt::format("{:4}    {:9.4f} ± {:9.4f}", chunk, s.perplexity.value, s.perplexity.error);
  const std::string kl = fmt::format("{:10.5f} ± {:10.5f}", s.kl.value, s.kl.error);
  const std::string same_top = percent(s.same_top, 6);
  if (width < kRowWidth) return fmt::format("{}  {}  {}\n", perplexity, kl, same_top);
  return fmt::format("{}    {:10.5f} ± {:10.5f}    {}    {}    {}\n", perplexity, s.log_ratio.value,
                     s.log_ratio.error, kl, percent(s.p_diff_rms, 6), same_top);
}

std::string comparison_text(const KlSummary& s) {
  return perplexity_block(s) + "\n" + kl_block(s) + "\n" + probability_block(s);
}

void comparison_json(const KlSummary& s, JsonWriter& json) {
  const auto estimate = [&](std::string_view name, const Estimate& e) {
    json.key(name).begin_object().field("value", e.value).field("error", e.error).end_object();
  };
  const auto open_ordered = [&](std::string_view name, const Estimate& mean, double max, double median,
                                double min) {
    json.key(name).begin_object();
    json.field("mean", mean.value).field("error", mean.error);
    json.field("max", max).field("median", median).field("min", min);
    json.key("percentiles").begin_object();
  };
  json.field("scored_tokens", s.count);
  estimate("perplexity", s.perplexity);
  estimate("perplexity_base", s.perplexity_base);
  json.field("correlation", s.correlation);
  estimate("ln_ratio", s.log_ratio);
  estimate("ratio", s.ratio);
  estimate("difference", s.difference);
  open_ordered("kl_divergence", s.kl, s.kl_max, s.kl_median, s.kl_min);
  for (size_t i = 0; i < s.kl_percentiles.size(); ++i)
    json.field(fmt::format("{:g}", 100 * KlSummary::kKlFractions[i]), s.kl_percentiles[i]);
  json.end_object().end_object();
  open_ordered("p_difference", s.p_diff, s.p_diff_max, s.p_diff_median, s.p_diff_min);
  for (size_t i = 0; i < s.p_diff_percentiles.size(); ++i)
    json.field(fmt::format("{:g}", 100 * KlSummary::kDiffFractions[i]), s.p_diff_percentiles[i]);
  json.end_object();
  json.key("rms").begin_object().field("value", s.p_diff_rms.value).field("error", s.p_diff_rms.error);
  json.end_object().end_object();
  estimate("same_top", s.same_top);
}

}  // namespace quern
