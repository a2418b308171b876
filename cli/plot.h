// Pictures of measurements as plain SVG: no scripts, no fonts, colours that suit a light and a dark page.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/tensor_diff.h"

namespace quern {

// One axis of a chart, in the units of its label.
struct PlotAxis {
  std::string label;
  double least = 0, most = 1;
  bool logarithmic = false;  // least > 0 then
  bool whole = false;        // counts: no ticks between whole numbers

  struct Tick {
    double value;
    std::string text;
  };
  // Round numbers within the axis, about `wanted` of them (of a logarithmic one: the powers of ten, more or
  // less of them).
  std::vector<Tick> ticks(size_t wanted) const;
  // 0 at least, 1 at most.
  double place(double value) const;
};

// A drawing area with axes, a title and a legend, 800 by 480.
class Plot {
 public:
  Plot(std::string title, PlotAxis x, PlotAxis y);

  struct Point {
    double x, y;
  };
  // Colours count from 0 and repeat. What lies outside of the axes is cut off.
  void band(const std::vector<Point>& low, const std::vector<Point>& high, size_t colour);
  void line(const std::vector<Point>& points, size_t colour);
  void bar(double x_begin, double x_end, double y, size_t colour);
  void points(const std::vector<Point>& points, size_t colour);
  // A dashed line over the whole height with a text at its top; `row`: how far below others.
  void marker(double x, const std::string& text, size_t row);
  void legend(const std::string& text, size_t colour);

  // The whole document.
  std::string svg() const;

 private:
  std::string place(const Point& point) const;  // "x,y" in the picture
  double left(double x) const;
  double top(double y) const;

  std::string title_;
  PlotAxis x_, y_;
  std::string shapes_, legend_;
  size_t n_legend_ = 0;
};

// Perplexity over the chunks so far, with a standard error to either side.
std::string plot_running_perplexity(const std::string& model, const std::vector<double>& perplexity,
                                    const std::vector<double>& errors);
// How many tokens have which divergence: logarithmic, with mean, median and 99th percentile. kl: nats, at
// least one.
std::string plot_kl_distribution(const std::string& model, const std::string& base, std::vector<double> kl);
// The error of every compared tensor over its layer, a colour for each kind of tensor; what belongs to no
// layer stands left of the first.
std::string plot_tensor_errors(const std::string& model, const std::string& base,
                               const std::vector<TensorDiff>& diffs);

// Writes a picture so that it is there whole or not at all, replacing an old one. Throws like OutputFile.
void write_picture(const std::string& path, std::string_view svg);
// Throws what write_picture would throw for a path that cannot be written to, before there is a picture.
void require_picture_path(const std::string& path);

}  // namespace quern
