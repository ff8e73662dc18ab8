// One GPU or machine of the catalogue, figure by figure, with how each is known.
#include <fmt/format.h>

#include "base/format.h"
#include "base/text_table.h"
#include "report/paint.h"
#include "report/report.h"

namespace steelyard::report {
namespace {

class Sheet {
 public:
  explicit Sheet(const Paint& paint) : paint_(paint), table_({{""}, {""}, {""}}) {}

  void say(std::string name, std::string_view value) {
    if (!value.empty()) table_.add({std::move(name), paint_.outside(value)});
  }

  template <class T>
  void figure(std::string name, const facts::Known<T>& known) {
    std::string origin(known.from == facts::Provenance::unknown ? "" : name_of(known.from));
    if (!known.note.empty()) origin += (origin.empty() ? "" : ": ") + paint_.outside(known.note);
    constexpr std::size_t kNameAndValue = 46;
    const std::size_t room = std::max<std::size_t>(paint_.columns(), kNameAndValue + 20);
    table_.add({std::move(name), known ? text_of(*known) : "unknown",
                paint_.ink(shortened(origin, room - kNameAndValue), Ink::quiet)});
  }

  [[nodiscard]] std::string text() const { return table_.text(2); }

 private:
  static std::string text_of(std::int64_t count) { return grouped(count); }
  static std::string text_of(double watts) { return fmt::format("{:.0f} W", watts); }
  template <class Quantity>
  static std::string text_of(const Quantity& quantity) {
    return to_text(quantity);
  }

  const Paint& paint_;
  TextTable table_;
};

void add_gpu(Sheet& sheet, const facts::Gpu& gpu) {
  sheet.say("architecture", gpu.architecture);
  if (gpu.compute_capability) {
    sheet.say("compute capability", fmt::format("{:.1f}", *gpu.compute_capability));
  }
  sheet.figure("memory", gpu.memory);
  sheet.figure("memory bandwidth", gpu.memory_bandwidth);
  sheet.figure("peak fp32", gpu.peak.fp32);
  sheet.figure("peak tf32", gpu.peak.tf32);
  sheet.figure("peak fp16", gpu.peak.fp16);
  sheet.figure("peak bf16", gpu.peak.bf16);
  sheet.figure("peak fp8", gpu.peak.fp8);
  if (gpu.peak.fp4) sheet.figure("peak fp4", gpu.peak.fp4);
  sheet.figure(gpu.peak.bf16 ? "measured bf16" : "measured fp16", gpu.measured_bf16);
  sheet.figure("link to other GPUs, one way", gpu.link);
  sheet.figure("link to the host, one way", gpu.host_link);
  sheet.figure("power", gpu.power_watts);
}

std::string sources_text(const std::vector<std::string>& sources, std::string_view confidence,
                         const Paint& paint) {
  std::string text;
  if (!confidence.empty()) text += "\nConfidence: " + paint.outside(confidence) + "\n";
  if (!sources.empty()) text += "\nSources\n";
  for (const std::string& source : sources) {
    for (const std::string& line : wrapped(paint.outside(source), paint.columns() - 2)) {
      text += "  " + line + "\n";
    }
  }
  return text;
}

std::string heading(std::string_view id, std::string_view name, const Paint& paint) {
  std::string text = paint.ink(paint.outside(id), Ink::strong);
  if (!name.empty() && name != id) text += "  " + paint.outside(name);
  return text + "\n\n";
}

// "8, the GPUs on 3 3 1 1 7 7 5 5"
std::string nodes_text(const facts::HostNuma& numa) {
  if (numa.nodes.empty()) return {};
  std::string text = fmt::format("{}", numa.nodes.size());
  if (!numa.gpus.empty()) text += ", the GPUs on";
  for (const facts::NearNode& gpu : numa.gpus) {
    text += gpu.node ? fmt::format(" {}", *gpu.node) : std::string(" ?");
  }
  return text;
}

void add_host(Sheet& sheet, const facts::Machine& machine) {
  sheet.say("host processor", machine.host.cpu_model);
  sheet.figure("host memory", machine.host.memory);
  sheet.figure("hardware threads", machine.host.threads);
  sheet.figure("cores", machine.host.cores);
  sheet.figure("sockets", machine.host.sockets);
  sheet.say("NUMA nodes", nodes_text(machine.host.numa));
  for (const facts::Storage& storage : machine.storage) {
    sheet.figure(storage.name + " capacity", storage.capacity);
    sheet.figure(storage.name + " read", storage.read);
    sheet.figure(storage.name + " write", storage.write);
  }
  if (machine.fabric_gpus) sheet.figure("GPUs on one fabric", machine.fabric_gpus);
  sheet.figure("network per GPU, one way", machine.network_per_gpu);
  if (machine.price) {
    sheet.say("price",
              fmt::format("{:.2f} {} per hour ({}, {})", machine.price->per_hour,
                          machine.price->currency, machine.price->date, machine.price->source));
  }
}

}  // namespace

std::string gpu_text(const facts::Gpu& gpu, const Style& style) {
  const Paint paint(style);
  Sheet sheet(paint);
  sheet.say("vendor", gpu.vendor);
  add_gpu(sheet, gpu);
  return heading(gpu.id, gpu.name, paint) + sheet.text() +
         sources_text(gpu.sources, gpu.confidence, paint);
}

std::string machine_text(const facts::Machine& machine, const Style& style) {
  const Paint paint(style);
  Sheet sheet(paint);
  sheet.say("provider", machine.provider);
  sheet.say("kind", machine.kind);
  add_host(sheet, machine);
  Sheet card(paint);
  add_gpu(card, machine.gpu);
  std::string text = heading(machine.id, machine.name, paint) + sheet.text();
  text += fmt::format("\n{} {} {}\n\n", machine.gpus, paint.signs().times,
                      paint.outside(machine.gpu.id)) +
          card.text() + sources_text(machine.sources, machine.confidence, paint);
  if (!machine.notes.empty()) text += "\nNotes\n";
  for (const std::string& line : wrapped(paint.outside(machine.notes), paint.columns() - 2)) {
    text += "  " + line + "\n";
  }
  return text;
}

}  // namespace steelyard::report
