#include "cli/report.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace quern {
namespace {

// While it lives, stderr is a terminal.
class TerminalAsStderr {
 public:
  TerminalAsStderr() {
    if (const char* const term = getenv("TERM")) term_ = term;
    EXPECT_EQ(openpty(&seen_by_user_, &written_, nullptr, nullptr, nullptr), 0);
    saved_ = dup(STDERR_FILENO);
    EXPECT_EQ(dup2(written_, STDERR_FILENO), STDERR_FILENO);
    setenv("TERM", "xterm", 1);
  }
  ~TerminalAsStderr() {
    EXPECT_EQ(dup2(saved_, STDERR_FILENO), STDERR_FILENO);
    for (const int fd : {seen_by_user_, written_, saved_}) close(fd);
    term_ ? setenv("TERM", term_->c_str(), 1) : unsetenv("TERM");
  }
  TerminalAsStderr(const TerminalAsStderr&) = delete;
  TerminalAsStderr& operator=(const TerminalAsStderr&) = delete;

  // What has come so far, and comes within `milliseconds`.
  const std::string& seen(int milliseconds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
    do {
      pollfd waiting{seen_by_user_, POLLIN, 0};
      char chunk[4096];
      if (poll(&waiting, 1, 10) > 0) {
        const ssize_t n = read(seen_by_user_, chunk, sizeof chunk);
        if (n > 0) seen_.append(chunk, static_cast<size_t>(n));
      }
    } while (std::chrono::steady_clock::now() < end);
    return seen_;
  }
  // False: `text` has not come n times within 30 seconds.
  bool wait_for(std::string_view text, size_t n) {
    for (int i = 0; i < 3000; ++i) {
      size_t found = 0;
      for (size_t at = 0; (at = seen(0).find(text, at)) != std::string::npos; ++at) ++found;
      if (found >= n) return true;
    }
    return false;
  }

 private:
  int seen_by_user_ = -1, written_ = -1, saved_ = -1;
  std::optional<std::string> term_;
  std::string seen_;
};

TEST(Report, CountsAreDecimal) {
  EXPECT_EQ(format_count(999'999), "999999");
  EXPECT_EQ(format_count(7'241'732'096), "7.24 B");
}

TEST(Report, DurationsKeepTwoUnits) {
  EXPECT_EQ(format_duration(0.312), "0.31 s");
  EXPECT_EQ(format_duration(12.34), "12.3 s");
  EXPECT_EQ(format_duration(185), "3 min 05 s");
  EXPECT_EQ(format_duration(7627), "2 h 07 min");
}

TEST(Report, TableColumnsAreAsWideAsTheirWidestCell) {
  Table table({{"name", Table::Align::kLeft}, {"n", Table::Align::kRight}, {"x", Table::Align::kLeft}});
  table.add_row({"a", "12345", "y"});
  table.add_row({"▁Hello", "7", ""});
  EXPECT_EQ(table.render(),
            "name        n  x\n"
            "a       12345  y\n"
            "▁Hello      7\n");
}

TEST(Report, NarrowTablesKeepTheNamesOfTheirRows) {
  Table table({{"name", Table::Align::kLeft}, {"n", Table::Align::kRight}, {"x", Table::Align::kLeft}});
  table.add_row({"blk.0.attn_output.weight", "12345", "a text that is long enough to be cut"});
  EXPECT_EQ(table.render(48),
            "name                          n  x\n"
            "blk.0.attn_output.weight  12345  a text that ...\n");
  EXPECT_EQ(table.render(36),
            "name                 n  x\n"
            "blk.0.attn_o...  12345  a text th...\n");
}

TEST(Report, ProgressShowsWhatIsLeft) {
  EXPECT_EQ(progress_line(1ull << 30, 4ull << 30, 2.0),
            "[======                  ]  25%  1.00 GiB of 4.00 GiB  0.54 GB/s  ETA 6.00 s");
  EXPECT_EQ(progress_line(4ull << 30, 4ull << 30, 8.0),
            "[========================] 100%  4.00 GiB of 4.00 GiB  0.54 GB/s");
}

TEST(Report, ProgressOfNothingIsFinished) {
  EXPECT_EQ(progress_line(0, 0, 0.0), "[========================] 100%  0 bytes of 0 bytes");
  EXPECT_EQ(progress_line(0, 100, 1.0), "[                        ]   0%  0 bytes of 100 bytes");
}

TEST(Report, ProgressNeverRoundsUpToDone) {
  EXPECT_NE(progress_line(999, 1000, 1.0).find(" 99%"), std::string::npos);
}

TEST(ProgressBar, IsRedrawnWhileAStepTakesLong) {
  TerminalAsStderr terminal;
  ProgressBar bar(ProgressUnit::kTokens);
  bar.update(0, 100);
  EXPECT_TRUE(terminal.wait_for("0 of 100 tokens", 3)) << terminal.seen(0);
  bar.clear();
  constexpr std::string_view kLineAndWiped = "\033[K\r\033[K";
  EXPECT_TRUE(terminal.seen(250).ends_with(kLineAndWiped)) << "not drawn until it is wanted again";
  bar.update(50, 100);
  EXPECT_TRUE(terminal.wait_for("50 of 100 tokens", 1)) << terminal.seen(0);
}

TEST(ProgressBar, IsNotDrawnForWorkThatIsSoonDone) {
  TerminalAsStderr terminal;
  {
    ProgressBar bar(ProgressUnit::kTokens, 3600);
    bar.update(0, 100);
    EXPECT_EQ(terminal.seen(250), "");
  }
  EXPECT_EQ(terminal.seen(0), "");
}

}  // namespace
}  // namespace quern
