// The CUDA driver, found when the program runs: no CUDA library is needed to build or to start.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "kernels/cuda/gpu.h"

namespace quern::cuda {

// The functions of libcuda.so.1 that are used, with the types of the driver API (NVIDIA, "CUDA Driver API
// Reference Manual"): CUresult and CUdevice are int, CUdeviceptr is 64 bits, contexts, modules, functions,
// streams, events and graphs are pointers. Tests put other functions in their place.
struct Driver {
  using Result = int;  // 0: success
  Result (*init)(unsigned flags);
  Result (*driver_version)(int* version);
  Result (*device_count)(int* n);
  Result (*device_get)(int* device, int index);
  Result (*device_name)(char* name, int n_bytes, int device);
  Result (*context_retain)(void** context, int device);
  Result (*context_release)(int device);
  Result (*context_set)(void* context);
  Result (*module_load)(void** module, const void* image);
  Result (*module_unload)(void* module);
  Result (*module_function)(void** function, void* module, const char* name);
  Result (*memory_info)(size_t* free, size_t* total);
  Result (*memory_allocate)(uint64_t* pointer, size_t n_bytes);
  Result (*memory_free)(uint64_t pointer);
  Result (*host_allocate)(void** pointer, size_t n_bytes, unsigned flags);
  Result (*host_free)(void* pointer);
  Result (*copy_to_device)(uint64_t to, const void* from, size_t n_bytes, void* stream);
  Result (*copy_to_host)(void* to, uint64_t from, size_t n_bytes, void* stream);
  Result (*memory_set)(uint64_t pointer, uint8_t value, size_t n, void* stream);
  Result (*stream_create)(void** stream, unsigned flags);
  Result (*stream_destroy)(void* stream);
  Result (*stream_synchronize)(void* stream);
  Result (*event_create)(void** event, unsigned flags);
  Result (*event_destroy)(void* event);
  Result (*event_record)(void* event, void* stream);
  Result (*event_synchronize)(void* event);
  Result (*launch)(void* function, unsigned x, unsigned y, unsigned z, unsigned threads_x, unsigned threads_y,
                   unsigned threads_z, unsigned shared_bytes, void* stream, void** args, void** extra);
  Result (*capture_begin)(void* stream, unsigned mode);
  Result (*capture_end)(void* stream, void** graph);
  Result (*graph_instantiate)(void** executable, void* graph, unsigned long long flags);
  Result (*graph_destroy)(void* graph);
  Result (*graph_executable_destroy)(void* executable);
  Result (*graph_launch)(void* executable, void* stream);
  Result (*error_name)(Result result, const char** name);
  Result (*error_text)(Result result, const char** text);
};

// Loaded once; null: there is none, or no GPU behind it, or this build has no kernels for one. why: a line.
const Driver* find_driver(std::string* why);
// GPUs that it counts; why: a line, where there are none.
int count_gpus(const Driver& driver, std::string* why);

// The compiled kernels of this build; empty: built without nvcc.
std::span<const uint8_t> device_code();

// Opens GPU `index`, takes a stream, loads the kernels. driver and code outlive it.
std::unique_ptr<Gpu> make_driver_gpu(const Driver& driver, int index, std::span<const uint8_t> code);

}  // namespace quern::cuda
