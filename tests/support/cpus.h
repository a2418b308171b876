// Binding threads to CPUs, and threads that keep one busy. Linux.
#pragma once

#include <gtest/gtest.h>
#include <time.h>

#include <atomic>
#include <thread>
#include <vector>

#include "quant/machine/affinity.h"

namespace quern {

// Binds the calling thread, and the threads that it starts from now on.
inline void bind_to(const std::vector<int>& cpus) {
  CpuSet set;
  for (const int cpu : cpus) set.set(static_cast<size_t>(cpu));
  ASSERT_TRUE(set_thread_affinity(this_thread_id(), set));
}

// A thread that does nothing else than keep a CPU busy, from the constructor's return to the destructor.
class BusyCpu {
 public:
  explicit BusyCpu(int cpu)
      : thread_([this, cpu] {
          bind_to({cpu});
          started_ = true;
          while (!over_) {
          }
        }) {
    while (!started_) std::this_thread::yield();
  }
  ~BusyCpu() {
    over_ = true;
    thread_.join();
  }
  BusyCpu(const BusyCpu&) = delete;
  BusyCpu& operator=(const BusyCpu&) = delete;

  // Processor time that the thread has had.
  double cpu_seconds() {
    clockid_t clock{};
    timespec time{};
    if (pthread_getcpuclockid(thread_.native_handle(), &clock) != 0 || clock_gettime(clock, &time) != 0)
      ADD_FAILURE() << "no clock of the busy thread";
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }

 private:
  std::atomic<bool> started_{false}, over_{false};
  std::thread thread_;
};

}  // namespace quern
