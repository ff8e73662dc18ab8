#include "report/measured_section.h"

#include <fmt/format.h>

#include "base/format.h"

namespace steelyard::report {
namespace {

template <class T>
void add(std::vector<std::string>& phrases, const char* name, const facts::Known<T>& figure) {
  if (figure && figure.from == facts::Provenance::measured) {
    phrases.push_back(std::string(name) + " " + to_text(*figure));
  }
}

}  // namespace

Lines measured_lines(const facts::Plan& plan, std::size_t width, const Paint& paint) {
  const facts::Machine& machine = plan.machine;
  std::vector<std::string> phrases;
  add(phrases, "host memory", machine.host.memory);
  add(phrases, "memory of a GPU", machine.gpu.memory);
  add(phrases, "host to GPU", machine.gpu.host_link);
  add(phrases, "GPU to GPU", machine.gpu.link);
  add(phrases, "bf16 GEMM", machine.gpu.measured_bf16);
  add(phrases, "memory bandwidth", machine.host.memory_bandwidth);
  add(phrases, "one thread's memcpy", machine.host.thread_copy);
  for (const facts::HostDecodeModel& model : machine.host.rates.decode) {
    if (model.work != "jpeg" && model.work != "png") continue;
    phrases.push_back(fmt::format("{} {:.2f} ns a pixel and {:.2f} ns a byte", model.work,
                                  model.per_pixel.value() * 1e9, model.per_byte.value() * 1e9));
  }
  for (const facts::Storage& storage : machine.storage) {
    add(phrases, (storage.name + " read").c_str(), storage.read);
    add(phrases, (storage.name + " write").c_str(), storage.write);
    add(phrases, (storage.name + " read from memory").c_str(), storage.cached_read);
  }
  return flowed(phrases, width, paint);
}

}  // namespace steelyard::report
