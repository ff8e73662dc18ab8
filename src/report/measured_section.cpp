#include "report/measured_section.h"

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
  for (const facts::Storage& storage : machine.storage) {
    add(phrases, (storage.name + " read").c_str(), storage.read);
  }
  return flowed(phrases, width, paint);
}

}  // namespace steelyard::report
