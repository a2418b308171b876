#include "quant/machine/thread_place.h"

#include <optional>

namespace quern {
namespace {

// Long against what moving costs (some 10 us, and a cold cache), short for who wants to use the machine.
constexpr auto kKeepOff = std::chrono::milliseconds(100);

}  // namespace

void ThreadPlace::enter() {
  const std::lock_guard lock(mutex_);
  id_ = this_thread_id();
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
  if (!lock || !at_work_ || brought_ || cpu < 0 || cpu >= static_cast<int>(CpuSet().size())) return false;
  brought_ = restrict_to(CpuSet().set(static_cast<size_t>(cpu)));
  return brought_;
}

void ThreadPlace::keep_off(const CpuSet& cpus) {
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

void ThreadPlace::restrict_to_others() { restrict_to(~kept_off_); }

bool ThreadPlace::restrict_to(const CpuSet& cpus) {
  const std::optional<CpuSet> mask = thread_affinity(id_);
  if (!mask) return false;
  const CpuSet whole = restricted_ && *mask == restriction_ ? before_ : *mask;
  const CpuSet allowed = whole & cpus;
  if (allowed.none() || !set_thread_affinity(id_, allowed)) return false;
  before_ = whole;
  restriction_ = allowed;
  restricted_ = true;
  return true;
}

void ThreadPlace::release() {
  if (!restricted_) return;
  restricted_ = false;
  if (thread_affinity(id_) == restriction_) set_thread_affinity(id_, before_);
}

}  // namespace quern
