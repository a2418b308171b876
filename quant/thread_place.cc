#include "quant/thread_place.h"

#include <unistd.h>

#include <cstring>

namespace quern {
namespace {

// Long against what moving costs (some 10 us, and a cold cache), short for who wants to use the machine.
constexpr auto kKeepOff = std::chrono::milliseconds(100);

}  // namespace

int this_cpu() { return sched_getcpu(); }

void ThreadPlace::enter() {
  const std::lock_guard lock(mutex_);
  id_ = gettid();
  if (Clock::now() < keep_off_until_) restrict_to_others();
}

void ThreadPlace::leave() {
  const std::lock_guard lock(mutex_);
  release();
}

void ThreadPlace::begin_work() {
  const std::lock_guard lock(mutex_);
  at_work_ = true;
}

bool ThreadPlace::end_work() {
  const std::lock_guard lock(mutex_);
  at_work_ = false;
  if (!brought_) return false;
  brought_ = false;
  release();
  return true;
}

bool ThreadPlace::bring_here() {
  const int cpu = this_cpu();
  const std::unique_lock lock(mutex_, std::try_to_lock);  // its thread may have lost its core with it
  if (!lock || !at_work_ || brought_ || cpu < 0 || cpu >= CPU_SETSIZE) return false;
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET(cpu, &here);
  brought_ = restrict_to(here);
  return brought_;
}

void ThreadPlace::keep_off(const cpu_set_t& cpus) {
  const std::lock_guard lock(mutex_);
  kept_off_ = cpus;
  keep_off_until_ = Clock::now() + kKeepOff;
  restrict_to_others();
}

void ThreadPlace::end_keep_off_in_time() {
  if (keep_off_until_ == Clock::time_point{} || Clock::now() < keep_off_until_) return;
  keep_off_until_ = {};
  leave();
}

void ThreadPlace::restrict_to_others() {
  cpu_set_t others;
  std::memset(&others, 0xff, sizeof others);
  CPU_XOR(&others, &others, &kept_off_);
  restrict_to(others);
}

bool ThreadPlace::restrict_to(const cpu_set_t& cpus) {
  cpu_set_t mask, allowed;
  if (sched_getaffinity(id_, sizeof mask, &mask) != 0) return false;
  const cpu_set_t& whole = restricted_ && CPU_EQUAL(&mask, &restriction_) ? before_ : mask;
  CPU_AND(&allowed, &whole, &cpus);
  if (CPU_COUNT(&allowed) == 0 || sched_setaffinity(id_, sizeof allowed, &allowed) != 0) return false;
  before_ = whole;
  restriction_ = allowed;
  restricted_ = true;
  return true;
}

void ThreadPlace::release() {
  if (!restricted_) return;
  restricted_ = false;
  cpu_set_t mask;
  if (sched_getaffinity(id_, sizeof mask, &mask) == 0 && CPU_EQUAL(&mask, &restriction_))
    sched_setaffinity(id_, sizeof before_, &before_);
}

}  // namespace quern
