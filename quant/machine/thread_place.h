// Moving a thread from one CPU to another.
//
// A thread whose core another process has taken waits until it is given back, some milliseconds, also while
// the core next to it has nothing to do; and beside a process that keeps one of two cores busy Linux is
// content with both threads of a pool on the other, where they take turns: it counts threads that
// want to run. A pool knows which thread is waited for and can do better (figures: models.md, threads beside
// a busy process).
#pragma once

#include <chrono>
#include <mutex>

#include "quant/machine/affinity.h"

namespace quern {

// Moves one thread by its affinity mask. What was the mask before comes back, unless somebody else has
// changed it meanwhile; nothing is moved to a CPU that is not in it. "Own" functions are called by the thread
// whose place it is. Failures of the system's calls leave the thread where it is.
class alignas(64) ThreadPlace {
 public:
  using Clock = std::chrono::steady_clock;

  // Own: before the others; gives `keep_off` its effect again for what is left of its time.
  void enter();
  // Own: the mask is as it was before enter().
  void leave();

  // Own: another thread may bring this one to its CPU from begin_work() until end_work(). end_work says
  // whether one has; this thread still is there, and may be anywhere again.
  void begin_work();
  bool end_work();
  // By another thread, which then sleeps: brings the thread of this place to the caller's CPU. False if that
  // is not at work, may not run there, has been brought already, or is just beginning or ending its work.
  bool bring_here();

  // Own: runs on none of `cpus` for 100 ms, if the mask has others.
  void keep_off(const CpuSet& cpus);
  // Own, now and then: ends keep_off's effect when its time is over.
  void end_keep_off_in_time();

 private:
  // All with mutex_ held.
  void restrict_to_others();             // keep_off's
  bool restrict_to(const CpuSet& cpus);  // of those in the mask; false if there are none
  void release();

  std::mutex mutex_;
  int id_ = 0;
  bool at_work_ = false, brought_ = false;
  bool restricted_ = false;
  CpuSet before_;       // the mask, while restricted_
  CpuSet restriction_;  // what it has been set to, while restricted_
  CpuSet kept_off_;     // while keep_off_until_ lies ahead
  Clock::time_point keep_off_until_{};
};

}  // namespace quern
