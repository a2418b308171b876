#include "cli/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <numeric>

#include "quant/output_file.h"
#include "runtime/kl_statistics.h"

namespace quern {
namespace {

constexpr double kWidth = 800, kHeight = 480, kLeft = 84, kRight = 170, kTop = 44, kBottom = 58;
constexpr double kPlotWidth = kWidth - kLeft - kRight, kPlotHeight = kHeight - kTop - kBottom;

// Of middling lightness, so that each is told from white and from black (after Okabe and Ito, "Color
// Universal Design", 2008).
constexpr std::string_view kColours[] = {"#0a84c6", "#d55e00", "#009e73", "#c0579a",
                                         "#b58900", "#6c71c4", "#2aa198", "#8a6d3b"};

std::string_view colour_of(size_t i) { return kColours[i % std::size(kColours)]; }

// Where colours come round again, shapes are hollow.
std::string paint_of(size_t i) {
  const bool hollow = i / std::size(kColours) % 2 != 0;
  return fmt::format("fill=\"{}\" stroke=\"{}\"", hollow ? "none" : colour_of(i), colour_of(i));
}

// Text of a document: a path may hold anything.
std::string xml(std::string_view text) {
  std::string out;
  for (const char c : printable(text, 256)) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

std::string file_name(const std::string& path) {
  const size_t end = path.find_last_not_of('/');
  if (end == std::string::npos) return path;
  const size_t slash = path.rfind('/', end);
  return path.substr(slash == std::string::npos ? 0 : slash + 1,
                     end - (slash == std::string::npos ? 0 : slash + 1) + 1);
}

// 1, 2 or 5 times a power of ten, at least `least`.
double round_step(double least) {
  const double power = std::pow(10, std::floor(std::log10(least)));
  for (const double factor : {1, 2, 5})
    if (factor * power >= least * (1 - 1e-9)) return factor * power;
  return 10 * power;
}

// Room for values from least to most, with a little around them.
PlotAxis axis_around(std::string label, double least, double most) {
  const double room = most > least ? 0.05 * (most - least) : std::max(0.05 * std::fabs(most), 1e-6);
  return {std::move(label), least - room, most + room, false};
}

}  // namespace

std::vector<PlotAxis::Tick> PlotAxis::ticks(size_t wanted) const {
  std::vector<Tick> result;
  if (logarithmic) {
    const auto first = static_cast<int>(std::ceil(std::log10(least) - 1e-9)),
               last = static_cast<int>(std::floor(std::log10(most) + 1e-9));
    const int step = std::max(1, (last - first + static_cast<int>(wanted)) / static_cast<int>(wanted));
    for (int i = first; i <= last; i += step) result.push_back({std::pow(10, i), fmt::format("1e{}", i)});
    return result;
  }
  const double step = std::max(round_step((most - least) / static_cast<double>(wanted)), whole ? 1.0 : 0.0);
  for (double i = std::ceil(least / step - 1e-9); i * step <= most + 1e-9 * step; ++i)
    result.push_back({i * step, fmt::format("{:.6g}", i * step == 0 ? 0 : i * step)});
  return result;
}

double PlotAxis::place(double value) const {
  if (!logarithmic) return (value - least) / (most - least);
  return (std::log10(std::max(value, least)) - std::log10(least)) / (std::log10(most) - std::log10(least));
}

Plot::Plot(std::string title, PlotAxis x, PlotAxis y)
    : title_(std::move(title)), x_(std::move(x)), y_(std::move(y)) {}

double Plot::left(double x) const { return kLeft + kPlotWidth * x_.place(x); }
double Plot::top(double y) const { return kTop + kPlotHeight * (1 - y_.place(y)); }
std::string Plot::place(const Point& point) const {
  return fmt::format("{:.1f},{:.1f}", left(point.x), top(point.y));
}

void Plot::band(const std::vector<Point>& low, const std::vector<Point>& high, size_t colour) {
  std::string corners;
  for (const Point& point : low) corners += place(point) + ' ';
  for (auto point = high.rbegin(); point != high.rend(); ++point) corners += place(*point) + ' ';
  shapes_ +=
      fmt::format("<polygon points=\"{}\" fill=\"{}\" fill-opacity=\"0.25\"/>\n", corners, colour_of(colour));
}

void Plot::line(const std::vector<Point>& points, size_t colour) {
  std::string corners;
  for (const Point& point : points) corners += place(point) + ' ';
  shapes_ += fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>\n",
                         corners, colour_of(colour));
}

void Plot::bar(double x_begin, double x_end, double y, size_t colour) {
  shapes_ += fmt::format(
      "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\" "
      "fill-opacity=\"0.75\"/>\n",
      left(x_begin), top(y), left(x_end) - left(x_begin), top(y_.least) - top(y), colour_of(colour));
}

void Plot::points(const std::vector<Point>& points, size_t colour) {
  for (const Point& point : points)
    shapes_ += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\" {}/>\n", left(point.x),
                           top(point.y), paint_of(colour));
}

void Plot::marker(double x, const std::string& text, size_t row) {
  const double at = left(x), height = kTop + 14 + 16 * static_cast<double>(row);
  shapes_ += fmt::format(
      "<line x1=\"{0:.1f}\" y1=\"{1}\" x2=\"{0:.1f}\" y2=\"{2}\" class=\"mark\"/>\n"
      "<text x=\"{3:.1f}\" y=\"{4}\" class=\"small\">{5}</text>\n",
      at, kTop, kTop + kPlotHeight, at + 4, height, xml(text));
}

void Plot::legend(const std::string& text, size_t colour) {
  const double y = kTop + 10 + 18 * static_cast<double>(n_legend_++), x = kWidth - kRight + 14;
  legend_ += fmt::format(
      "<rect x=\"{}\" y=\"{}\" width=\"12\" height=\"12\" {}/>\n"
      "<text x=\"{}\" y=\"{}\" class=\"small\">{}</text>\n",
      x, y - 10, paint_of(colour), x + 18, y, xml(text));
}

std::string Plot::svg() const {
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" "
      "font-family=\"sans-serif\" font-size=\"13\">\n"
      "<style>\n"
      "text {{ fill: #1f2328; }} .small {{ font-size: 11px; }} .grid {{ stroke: #80808050; }}\n"
      ".axis {{ stroke: #808080; fill: none; }} .mark {{ stroke: #808080; stroke-dasharray: 4 3; }}\n"
      "@media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3; }} }}\n"
      "</style>\n"
      "<title>{2}</title>\n<text x=\"{3}\" y=\"24\" font-size=\"15\">{2}</text>\n",
      kWidth, kHeight, xml(title_), kLeft);
  for (const PlotAxis::Tick& tick : x_.ticks(8)) {
    const double x = left(tick.value);
    out += fmt::format(
        "<line x1=\"{0:.1f}\" y1=\"{1}\" x2=\"{0:.1f}\" y2=\"{2}\" class=\"grid\"/>\n"
        "<text x=\"{0:.1f}\" y=\"{3}\" text-anchor=\"middle\" class=\"small\">{4}</text>\n",
        x, kTop, kTop + kPlotHeight, kTop + kPlotHeight + 18, tick.text);
  }
  for (const PlotAxis::Tick& tick : y_.ticks(6)) {
    const double y = top(tick.value);
    out += fmt::format(
        "<line x1=\"{0}\" y1=\"{1:.1f}\" x2=\"{2}\" y2=\"{1:.1f}\" class=\"grid\"/>\n"
        "<text x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\" class=\"small\">{5}</text>\n",
        kLeft, y, kLeft + kPlotWidth, kLeft - 8, y + 4, tick.text);
  }
  out += fmt::format(
      "<clipPath id=\"area\"><rect x=\"{0}\" y=\"{1}\" width=\"{2}\" height=\"{3}\"/></clipPath>\n"
      "<g clip-path=\"url(#area)\">\n{4}</g>\n"
      "<rect x=\"{0}\" y=\"{1}\" width=\"{2}\" height=\"{3}\" class=\"axis\"/>\n{5}",
      kLeft, kTop, kPlotWidth, kPlotHeight, shapes_, legend_);
  out += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", kLeft + kPlotWidth / 2,
                     kHeight - 14, xml(x_.label));
  const double middle = kTop + kPlotHeight / 2;
  out += fmt::format(
      "<text x=\"20\" y=\"{0}\" text-anchor=\"middle\" transform=\"rotate(-90 20 {0})\">{1}</text>\n", middle,
      xml(y_.label));
  return out + "</svg>\n";
}

std::string plot_running_perplexity(const std::string& model, const std::vector<double>& perplexity,
                                    const std::vector<double>& errors) {
  std::vector<Plot::Point> low, high, middle;
  double least = HUGE_VAL, most = -HUGE_VAL;
  for (size_t i = 0; i < perplexity.size(); ++i) {
    const double x = static_cast<double>(i + 1);
    middle.push_back({x, perplexity[i]});
    low.push_back({x, perplexity[i] - errors[i]});
    high.push_back({x, perplexity[i] + errors[i]});
    least = std::min(least, low.back().y);
    most = std::max(most, high.back().y);
  }
  Plot plot(fmt::format("Perplexity of {}", file_name(model)),
            {"chunks measured", 1, std::max(2.0, static_cast<double>(perplexity.size())), false, true},
            axis_around("perplexity", least, most));
  plot.band(low, high, 0);
  plot.line(middle, 0);
  if (middle.size() == 1) plot.points(middle, 0);
  plot.legend("up to this chunk", 0);
  plot.legend("± standard error", 0);
  return plot.svg();
}

std::string plot_kl_distribution(const std::string& model, const std::string& base, std::vector<double> kl) {
  constexpr size_t kBins = 60;
  constexpr double kLeast = 1e-7;  // what is less, nothing too, stands in the first bin
  std::sort(kl.begin(), kl.end());
  PlotAxis x{"KL divergence of a token, nats", kLeast, 0, true};
  x.most = std::pow(10, std::ceil(std::log10(std::max(kl.back(), 10 * kLeast))));
  std::vector<size_t> counts(kBins);
  for (const double value : kl) ++counts[std::min(static_cast<size_t>(x.place(value) * kBins), kBins - 1)];
  const double n = static_cast<double>(kl.size());
  const double most = 100 * static_cast<double>(*std::max_element(counts.begin(), counts.end())) / n;
  Plot plot(fmt::format("{} against {}", file_name(model), file_name(base)), x,
            {"tokens, %", 0, 1.15 * most, false});
  const double decades = std::log10(x.most / x.least);
  const auto edge = [&](size_t i) {
    return x.least * std::pow(10, decades * static_cast<double>(i) / static_cast<double>(kBins));
  };
  for (size_t i = 0; i < kBins; ++i)
    if (counts[i] > 0) plot.bar(edge(i), edge(i + 1), 100 * static_cast<double>(counts[i]) / n, 0);
  const double mean = std::accumulate(kl.begin(), kl.end(), 0.0) / n;
  plot.marker(percentile(kl, 0.5), fmt::format("median {:.2g}", percentile(kl, 0.5)), 0);
  plot.marker(mean, fmt::format("mean {:.2g}", mean), 1);
  plot.marker(percentile(kl, 0.99), fmt::format("99% {:.2g}", percentile(kl, 0.99)), 2);
  plot.legend(fmt::format("{} tokens", kl.size()), 0);
  return plot.svg();
}

std::string plot_tensor_errors(const std::string& model, const std::string& base,
                               const std::vector<TensorDiff>& diffs) {
  std::map<std::string, std::vector<Plot::Point>> kinds;
  double most_layer = 0, most = 0;
  for (const TensorDiff& diff : diffs) {
    if (diff.state != TensorDiff::State::kCompared || !std::isfinite(diff.relative_rms_error)) continue;
    // "blk.12.attn_q.weight" is attn_q of layer 12.
    std::string_view name = diff.name;
    double layer = -1;
    if (name.starts_with("blk.")) {
      name.remove_prefix(4);
      unsigned number = 0;
      const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
      if (error == std::errc() && end != name.data() + name.size() && *end == '.') {
        name.remove_prefix(static_cast<size_t>(end - name.data()) + 1);
        layer = number;
      }
    }
    if (name.ends_with(".weight")) name.remove_suffix(7);
    // Tensors kept as floats have no error to show.
    if (diff.relative_rms_error == 0) continue;
    kinds[std::string(name)].push_back({layer, diff.relative_rms_error});
    most_layer = std::max(most_layer, layer);
    most = std::max(most, diff.relative_rms_error);
  }
  Plot plot(fmt::format("{} against {}", file_name(model), file_name(base)),
            {"layer (-1: tensors of no layer)", -1.5, most_layer + 0.5, false, true},
            {"relative RMS error", 0, most > 0 ? 1.1 * most : 1, false});
  size_t colour = 0;
  constexpr size_t kMostNamed = 20;
  for (const auto& [kind, points] : kinds) {
    plot.points(points, colour);
    if (colour < kMostNamed) plot.legend(kind, colour);
    ++colour;
  }
  if (kinds.empty()) plot.legend("no tensor differs", 0);
  return plot.svg();
}

void write_picture(const std::string& path, std::string_view svg) {
  OutputFile file(path, svg.size(), /*overwrite=*/true);
  file.write_at(0, {reinterpret_cast<const uint8_t*>(svg.data()), svg.size()});
  file.commit();
}

void require_picture_path(const std::string& path) { OutputFile(path, 0, /*overwrite=*/true); }

}  // namespace quern
