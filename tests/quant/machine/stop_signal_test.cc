#include "quant/machine/stop_signal.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>

namespace quern {
namespace {

// In death tests: each is a process of its own.
TEST(StopSignalDeathTest, OutsideOfAScopeASignalEndsTheProcess) {
  const auto receive = [](int signal) {
    install_stop_signals();
    raise(signal);
  };
  EXPECT_EXIT(receive(SIGINT), testing::ExitedWithCode(130), "");
  EXPECT_EXIT(receive(SIGTERM), testing::ExitedWithCode(143), "");
}

TEST(StopSignalDeathTest, InsideOfAScopeTheFirstSetsAFlagAndTheSecondEnds) {
  const auto once = [] {
    install_stop_signals();
    const StopScope scope;
    if (scope.requested()) _exit(1);
    const std::atomic<bool>& flag = scope.flag();
    raise(SIGTERM);
    _exit(flag && scope.requested() && scope.signal() == SIGTERM && stop_exit_code() == 143 ? 0 : 2);
  };
  const auto twice = [] {
    install_stop_signals();
    const StopScope scope;
    raise(SIGTERM);
    raise(SIGINT);
  };
  EXPECT_EXIT(once(), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(twice(), testing::ExitedWithCode(130), "");
}

TEST(StopSignalDeathTest, EveryScopeStartsCleared) {
  const auto run = [] {
    install_stop_signals();
    for (int i = 0; i < 3; ++i) {
      const StopScope scope;
      if (scope.requested() || scope.signal() != 0) _exit(1);
      raise(SIGINT);
      if (!scope.requested()) _exit(2);
    }
    _exit(0);
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace quern
