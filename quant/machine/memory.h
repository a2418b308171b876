// Memory that the machine has and this process may take.
#pragma once

#include <cstdint>
#include <string>

namespace quern {

// Bytes that this process may still take: the least of the kernel's MemAvailable, what the memory cgroups
// above this process leave, and RLIMIT_AS. UINT64_MAX when nothing can be read.
uint64_t available_memory();

// Bytes of memory that the machine has; 0: not known.
uint64_t total_memory();

// The most bytes that this process has had in memory, since its start or the last restart_peak_memory(); 0:
// not known.
uint64_t peak_memory();
// Lets the peak begin again at what is in memory now. False: the system does not allow it, nothing changed.
bool restart_peak_memory();

// From now on nothing that this process has in memory, or takes into it, is moved out of it again. Throws
// kResource naming the limit (RLIMIT_MEMLOCK) where the system does not allow it; needed_bytes: for the
// message.
void lock_memory(uint64_t needed_bytes);

// From now on blocks of 2 MiB and more that are freed go back to the system. (By itself glibc counts as large
// only what is larger than all that was freed before, and keeps the rest.)
void give_back_large_blocks();

// How the system backs memory with huge pages, on a file system that begins at `root` ("" for the real one):
// "always", "madvise" (where it is asked to, as quern does), "never"; empty: not known.
std::string huge_page_mode(const std::string& root = "");

}  // namespace quern
