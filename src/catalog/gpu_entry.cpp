#include <string>

#include "catalog/entries.h"
#include "catalog/fields.h"
#include "catalog/units.h"

namespace steelyard::catalog {
namespace {

using facts::Known;
using facts::Provenance;

// What a program can allocate: as CUDA reports it, else as the driver's tool does, else the label.
Known<Bytes> memory_of(Fields& fields) {
  Known<Bytes> visible = fields.known<Bytes>("cuda_visible_mib", kMebi);
  Known<Bytes> reported = fields.known<Bytes>("memory_mib_reported", kMebi);
  Known<Bytes> usable = fields.known<Bytes>("memory_usable_gib", kGibi);
  Known<Bytes> label = fields.known<Bytes>("memory_gb", kGibi);
  if (visible) return visible;
  if (reported) return reported;
  if (usable) return usable;
  if (label) {
    label.from = Provenance::assumed;
    label.note = "the vendor's label, counted as GiB";
  }
  return label;
}

Known<BytesPerSecond> link_of(Fields& fields) {
  constexpr double kOneWay = 0.5;
  Known<BytesPerSecond> link =
      fields.known<BytesPerSecond>("link_both_ways_gb_per_s", kGiga * kOneWay);
  if (link && link->value() == 0.0) link.note = "no direct link: GPUs talk over the host's PCIe";
  return link;
}

Known<BytesPerSecond> host_link_of(Fields& fields) {
  Known<BytesPerSecond> own = fields.known<BytesPerSecond>("host_link_one_way_gb_per_s", kGiga);
  Known<BytesPerSecond> pcie = fields.known<BytesPerSecond>("pcie_one_way_gb_per_s", kGiga);
  return own ? own : pcie;
}

// Absent where no vendor's server is known.
Known<BytesPerSecond> reference_network_of(const facts::Value& entry, Fields& fields) {
  if (entry.find("reference_network_gbit_per_s") == nullptr) return {};
  Known<BytesPerSecond> rate =
      fields.known<BytesPerSecond>("reference_network_gbit_per_s", kGigabit);
  rate.from = Provenance::assumed;
  rate.note = "as in " + fields.text("reference_network");
  return rate;
}

facts::PeakRates peaks_of(Fields& fields) {
  return {.fp32 = fields.known<FlopsPerSecond>("dense_tflops.fp32", kTera),
          .tf32 = fields.known<FlopsPerSecond>("dense_tflops.tf32", kTera),
          .fp16 = fields.known<FlopsPerSecond>("dense_tflops.fp16", kTera),
          .bf16 = fields.known<FlopsPerSecond>("dense_tflops.bf16", kTera),
          .fp8 = fields.known<FlopsPerSecond>("dense_tflops.fp8", kTera),
          .fp4 = fields.known<FlopsPerSecond>("dense_tflops.fp4", kTera)};
}

}  // namespace

Result<facts::Gpu> gpu_from(const facts::Value& entry, const std::filesystem::path& file) {
  const facts::Value* id = entry.find("id");
  const std::string* name = id == nullptr ? nullptr : id->as_text();
  Fields fields(entry, name == nullptr ? "an entry without id" : *name, file);
  facts::Gpu gpu;
  gpu.id = fields.text("id");
  gpu.name = fields.text("name");
  gpu.vendor = fields.text("vendor");
  gpu.architecture = fields.text("architecture");
  gpu.compute_capability = fields.real("compute_capability");
  gpu.memory = memory_of(fields);
  gpu.memory_bandwidth = fields.known<BytesPerSecond>("memory_bandwidth_gb_per_s", kGiga);
  gpu.peak = peaks_of(fields);
  gpu.measured_bf16 = fields.known<FlopsPerSecond>("measured_bf16_tflops", kTera);
  if (gpu.measured_bf16) gpu.measured_bf16.note = "the best GEMM rate that somebody measured";
  gpu.link = link_of(fields);
  if (entry.find("link_gpus") != nullptr) {
    gpu.link_gpus = static_cast<std::int64_t>(fields.real("link_gpus").value_or(0.0));
  }
  const facts::Value* peer = entry.find("peer_access");  // absent: allowed
  const bool* allowed = peer == nullptr ? nullptr : peer->as_bool();
  gpu.peer_access = allowed == nullptr || *allowed;
  gpu.host_link = host_link_of(fields);
  gpu.reference_network = reference_network_of(entry, fields);
  if (const auto watts = fields.real("power_watts")) {
    gpu.power_watts = {*watts, Provenance::catalogue, fields.note_for("power_watts")};
  }
  gpu.sources = fields.texts("source");
  gpu.confidence = fields.text("confidence");
  STEELYARD_CHECK(fields.check());
  return gpu;
}

}  // namespace steelyard::catalog
