// A library with the CUDA driver's functions that copies in host memory and keeps a clock of its
// own: each copy takes the time that FAKE_CUDA says, so that rates come out exactly.
//
//   FAKE_CUDA="to=50 from=40 pageable=10 inside=1000 init=100 memory=out"   rates in 10^9 bytes/s
//   pin=out: memory of the program's own is not pinned; event=busy: no copy ever ends;
//   lost=3: so many copies end, then the GPU is gone
#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <string>

namespace {

constexpr int kSuccess = 0, kInvalidValue = 1, kOutOfMemory = 2, kNotReady = 600, kGone = 719;

std::string option(const char* name, const char* otherwise) {
  const char* all = std::getenv("FAKE_CUDA");
  const std::string text = std::string(" ") + (all == nullptr ? "" : all) + " ";
  const std::string key = std::string(" ") + name + "=";
  const std::size_t at = text.find(key);
  if (at == std::string::npos) return otherwise;
  const std::size_t begin = at + key.size();
  return text.substr(begin, text.find(' ', begin) - begin);
}

double rate(const char* name, const char* otherwise) {
  return std::strtod(option(name, otherwise).c_str(), nullptr) * 1e9;
}

std::mutex g_mutex;
double g_now = 0;  // seconds; with the mutex
std::atomic<long> g_pinned{0}, g_on_device{0}, g_contexts{0}, g_events{0}, g_streams{0};
std::atomic<long> g_copies{0};
std::atomic<const char*> g_pinned_block{nullptr};
std::atomic<std::size_t> g_pinned_bytes{0};

bool is_pinned(const void* block) {
  const char* const begin = g_pinned_block;
  return block >= begin && block < begin + g_pinned_bytes;
}

void pass(double seconds) {
  const std::scoped_lock lock(g_mutex);
  g_now += seconds;
}

struct Event {
  double at;
};

// A driver's own memory, not the program's: what a lost device keeps is no leak of the program.
constexpr std::size_t kHeader = 4096;
void* taken(std::size_t bytes) {
  void* whole =
      mmap(nullptr, bytes + kHeader, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (whole == MAP_FAILED) return nullptr;
  *static_cast<std::size_t*>(whole) = bytes + kHeader;
  return static_cast<char*>(whole) + kHeader;
}
void give_back(void* pointer) {
  if (pointer == nullptr) return;
  void* whole = static_cast<char*>(pointer) - kHeader;
  munmap(whole, *static_cast<std::size_t*>(whole));
}

}  // namespace

extern "C" {

int cuInit(unsigned int) {
  return static_cast<int>(std::strtol(option("init", "0").c_str(), nullptr, 10));
}
int cuGetErrorName(int error, const char** name) {
  *name = error == 100     ? "CUDA_ERROR_NO_DEVICE"
          : error == 2     ? "CUDA_ERROR_OUT_OF_MEMORY"
          : error == kGone ? "CUDA_ERROR_LAUNCH_FAILED"
                           : "CUDA_ERROR_UNKNOWN";
  return kSuccess;
}
int cuDeviceGetCount(int* count) {
  *count = static_cast<int>(std::strtol(option("count", "1").c_str(), nullptr, 10));
  return kSuccess;
}
int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return kSuccess;
}
int cuDeviceGetPCIBusId(char* id, int length, int device) {
  std::snprintf(id, static_cast<std::size_t>(length), "0000:%02X:00.0", 0x1b + device * 0x10);
  return kSuccess;
}
int cuDeviceTotalMem_v2(std::size_t* bytes, int) {
  *bytes = std::size_t{79647} << 20;
  return kSuccess;
}
int cuDeviceGetName(char* name, int length, int device) {
  std::snprintf(name, static_cast<std::size_t>(length), "Fake GPU %d", device);
  return kSuccess;
}
int cuDevicePrimaryCtxRetain(void** context, int) {
  static int kept;
  *context = &kept;
  ++g_contexts;
  return kSuccess;
}
int cuDevicePrimaryCtxRelease_v2(int) {
  --g_contexts;
  return kSuccess;
}
int cuCtxSetCurrent(void*) {
  return kSuccess;
}
int cuMemAlloc_v2(unsigned long long* pointer, std::size_t bytes) {
  if (option("memory", "") == "out") return kOutOfMemory;
  *pointer = reinterpret_cast<unsigned long long>(taken(bytes));
  ++g_on_device;
  return *pointer == 0 ? kOutOfMemory : kSuccess;
}
int cuMemFree_v2(unsigned long long pointer) {
  give_back(reinterpret_cast<void*>(pointer));
  --g_on_device;
  return kSuccess;
}
int cuMemHostAlloc(void** pointer, std::size_t bytes, unsigned int) {
  if (option("pinned", "") == "out") return kOutOfMemory;
  *pointer = std::malloc(bytes);
  g_pinned_block = static_cast<const char*>(*pointer);
  g_pinned_bytes = bytes;
  ++g_pinned;
  return *pointer == nullptr ? kOutOfMemory : kSuccess;
}
int cuMemFreeHost(void* pointer) {
  std::free(pointer);
  --g_pinned;
  return kSuccess;
}
int cuMemHostRegister_v2(void* pointer, std::size_t bytes, unsigned int) {
  if (option("pin", "") == "out") return kOutOfMemory;
  g_pinned_block = static_cast<const char*>(pointer);
  g_pinned_bytes = bytes;
  ++g_pinned;
  return kSuccess;
}
int cuMemHostUnregister(void* pointer) {
  if (pointer != g_pinned_block) return kInvalidValue;
  --g_pinned;
  return kSuccess;
}
int cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, std::size_t bytes, void*) {
  if (to == 0 || from == nullptr) return kInvalidValue;
  std::memcpy(reinterpret_cast<void*>(to), from, bytes);
  pass(static_cast<double>(bytes) / (is_pinned(from) ? rate("to", "50") : rate("pageable", "10")));
  ++g_copies;
  return option("copy", "") == "fails" ? kGone : kSuccess;
}
int cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, std::size_t bytes, void*) {
  if (from == 0 || to == nullptr) return kInvalidValue;
  std::memcpy(to, reinterpret_cast<void*>(from), bytes);
  pass(static_cast<double>(bytes) / (is_pinned(to) ? rate("from", "40") : rate("pageable", "10")));
  return kSuccess;
}
int cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, std::size_t bytes, void*) {
  if (to == 0 || from == 0) return kInvalidValue;
  std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
  pass(2 * static_cast<double>(bytes) / rate("inside", "1000"));
  return kSuccess;
}
int cuStreamCreate(void** stream, unsigned int) {
  static int kept;
  *stream = &kept;
  ++g_streams;
  return kSuccess;
}
int cuStreamDestroy_v2(void*) {
  --g_streams;
  return kSuccess;
}
int cuEventCreate(void** event, unsigned int) {
  *event = new (taken(sizeof(Event))) Event{0};
  ++g_events;
  return kSuccess;
}
int cuEventDestroy_v2(void* event) {
  give_back(event);
  --g_events;
  return kSuccess;
}
int cuEventRecord(void* event, void*) {
  const std::scoped_lock lock(g_mutex);
  static_cast<Event*>(event)->at = g_now;
  return kSuccess;
}
int cuEventSynchronize(void*) {
  return kSuccess;
}
int cuEventQuery(void*) {
  if (option("event", "") == "busy") return kNotReady;
  const long last = std::strtol(option("lost", "-1").c_str(), nullptr, 10);
  return last >= 0 && g_copies > last ? kGone : kSuccess;
}
int cuEventElapsedTime(float* milliseconds, void* start, void* end) {
  *milliseconds =
      static_cast<float>((static_cast<Event*>(end)->at - static_cast<Event*>(start)->at) * 1e3);
  return kSuccess;
}

// For the fake cuBLASLt: its products take time on the same clock.
void fake_cuda_pass(double seconds) {
  pass(seconds);
}

// What a test looks at afterwards: everything must have been given back.
long fake_cuda_held() {
  return g_pinned + g_on_device + g_contexts + g_events + g_streams;
}

}  // extern "C"
