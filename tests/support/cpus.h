// The CPUs that a test may use, binding threads to them, and threads that keep one busy. Linux.
#pragma once

#include <gtest/gtest.h>
#include <sched.h>
#include <time.h>

#include <atomic>
#include <thread>
#include <vector>

namespace quern {

inline std::vector<int> usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof set, &set);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  return cpus;
}

// Binds the calling thread, and the threads that it starts from now on.
inline void bind_to(const std::vector<int>& cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) CPU_SET(cpu, &set);
  ASSERT_EQ(sched_setaffinity(0, sizeof set, &set), 0);
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
