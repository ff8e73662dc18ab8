#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "catalog/catalog.h"
#include "catalog/units.h"
#include "codec/codec.h"

namespace steelyard::catalog {
namespace {

using facts::Known;
using facts::Provenance;

Known<Bytes> given_gib(double gib) {
  return {Bytes(checked_round(gib * kGibi)), Provenance::given};
}

Result<void> in_range(const char* key, std::optional<double> value, double most) {
  if (!value || (std::isfinite(*value) && *value > 0.0 && *value <= most)) return {};
  return fail(Error{.code = ErrorCode::bad_input,
                    .subject = key,
                    .found = fmt::format("{}", *value),
                    .accepted = fmt::format("a number above 0, up to {}", most)});
}

bool is_file_name(const std::string& name) {
  return name.ends_with(".json") || name.find('/') != std::string::npos;
}

Result<facts::Machine> machine_file(const std::string& name, const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / name;
  STEELYARD_TRY(value, codec::read_value(file));
  return codec::machine_from(value, file.string());
}

facts::Machine bare(facts::Gpu gpu, const facts::MachineKeys& keys) {
  facts::Machine machine;
  machine.id = gpu.id;
  machine.name = gpu.name;
  machine.kind = "bare-gpu";
  machine.gpus = keys.gpus.value_or(1);
  machine.sources = gpu.sources;
  machine.confidence = gpu.confidence;
  machine.gpu = std::move(gpu);
  return machine;
}

// The rates are those of the storage that holds the data: data.location, else the first one.
void set_storage_rates(facts::Machine& machine, const facts::Job& job) {
  const facts::MachineKeys& keys = job.machine;
  if (!keys.storage_gb_per_s && !keys.storage_write_gb_per_s && !keys.storage_total_gb_per_s)
    return;
  std::string name = "nvme";
  if (job.data.location) {
    name = *job.data.location;
  } else if (!machine.storage.empty()) {
    name = machine.storage.front().name;
  }
  auto at = std::find_if(machine.storage.begin(), machine.storage.end(),
                         [&](const facts::Storage& storage) { return storage.name == name; });
  if (at == machine.storage.end()) {
    facts::Storage storage;
    storage.name = name;
    at = machine.storage.insert(machine.storage.end(), std::move(storage));
  }
  const auto set = [](Known<BytesPerSecond>& rate, const std::optional<double>& given) {
    if (given) rate = {BytesPerSecond(*given * kGiga), Provenance::given};
  };
  set(at->read, keys.storage_gb_per_s);
  set(at->write, keys.storage_write_gb_per_s);
  set(at->shared_read, keys.storage_total_gb_per_s);
}

// The nodes keep their parts of the host's memory, in the proportion that they had.
void set_memory(facts::Host& host, double gib) {
  host.memory = given_gib(gib);
  Bytes sum;
  for (const facts::HostNode& node : host.numa.nodes) sum += node.memory.value.value_or(Bytes());
  for (facts::HostNode& node : host.numa.nodes) {
    if (!node.memory || sum == Bytes()) continue;
    const double part = node.memory->real() / sum.real();
    node.memory = {Bytes(static_cast<std::int64_t>(host.memory->real() * part)),
                   Provenance::derived, "its part of machine.ram_gib"};
  }
}

// 0: none; another one joins all GPUs of a node.
Result<void> set_gpu_link(facts::Gpu& gpu, std::optional<double> given, double most) {
  if (!given) return {};
  if (*given != 0.0) STEELYARD_CHECK(in_range("machine.gpu_link_gb_per_s", given, most));
  gpu.link = {BytesPerSecond(*given * kGiga), Provenance::given};
  gpu.link_gpus = 0;
  return {};
}

// Which cores those are is not known.
void set_cores(facts::Host& host, std::int64_t cores) {
  host.cores = {cores, Provenance::given};
  for (facts::HostNode& node : host.numa.nodes) {
    node.cores = {};
    node.cpus.clear();
  }
}

Result<void> apply(facts::Machine& machine, const facts::Job& job) {
  const facts::MachineKeys& keys = job.machine;
  // 2^30 GiB fit into 64 bits of bytes; a rate of 1e9 GB/s is beyond any machine.
  constexpr double kMostGib = 1073741824.0;
  constexpr double kMostRate = 1e9;
  STEELYARD_CHECK(in_range("machine.ram_gib", keys.ram_gib, kMostGib));
  STEELYARD_CHECK(in_range("machine.vram_gib", keys.vram_gib, kMostGib));
  STEELYARD_CHECK(in_range("machine.host_tflops", keys.host_tflops, kMostRate));
  STEELYARD_CHECK(in_range("machine.storage_gb_per_s", keys.storage_gb_per_s, kMostRate));
  STEELYARD_CHECK(
      in_range("machine.storage_write_gb_per_s", keys.storage_write_gb_per_s, kMostRate));
  STEELYARD_CHECK(
      in_range("machine.storage_total_gb_per_s", keys.storage_total_gb_per_s, kMostRate));
  STEELYARD_CHECK(in_range("machine.network_gbps_per_gpu", keys.network_gbps_per_gpu, kMostRate));
  STEELYARD_CHECK(set_gpu_link(machine.gpu, keys.gpu_link_gb_per_s, kMostRate));
  if (keys.ram_gib) set_memory(machine.host, *keys.ram_gib);
  if (keys.vram_gib) machine.gpu.memory = given_gib(*keys.vram_gib);
  if (keys.cores) set_cores(machine.host, *keys.cores);
  if (keys.host_tflops) {
    const Known<FlopsPerSecond> rate{FlopsPerSecond(*keys.host_tflops * kTera), Provenance::given};
    machine.host.products_fp32 = machine.host.products_bf16 = rate;
  }
  set_storage_rates(machine, job);
  if (keys.network_gbps_per_gpu) {
    machine.network_per_gpu = {BytesPerSecond(*keys.network_gbps_per_gpu * kGigabit),
                               Provenance::given};
  } else if (keys.nodes > 1 && !machine.network_per_gpu) {
    machine.network_per_gpu = machine.gpu.reference_network;
  }
  return {};
}

Error conflict(const char* subject, std::string found, std::string accepted) {
  return Error{.code = ErrorCode::impossible_combination,
               .subject = subject,
               .found = std::move(found),
               .accepted = std::move(accepted)};
}

}  // namespace

Result<facts::Machine> Catalog::machine_of(const facts::Job& job,
                                           const std::filesystem::path& folder) const {
  const facts::MachineKeys& keys = job.machine;
  if (keys.name && keys.gpu) {
    return fail(conflict("machine",
                         fmt::format("both name ({}) and gpu ({})", *keys.name, *keys.gpu),
                         "one of them"));
  }
  facts::Machine machine;
  if (keys.name) {
    STEELYARD_TRY(named, is_file_name(*keys.name) ? machine_file(*keys.name, folder)
                                                  : this->machine(*keys.name));
    machine = std::move(named);
    if (keys.gpus && *keys.gpus > machine.gpus) {
      return fail(conflict("machine.gpus", fmt::format("{}", *keys.gpus),
                           fmt::format("a whole number from 1 to {}, the GPUs of one {}",
                                       machine.gpus, machine.id)));
    }
  } else if (keys.gpu) {
    STEELYARD_TRY(gpu, this->gpu(*keys.gpu));
    machine = bare(std::move(gpu), keys);
  } else {
    return fail(Error{.code = ErrorCode::missing_value,
                      .subject = "machine",
                      .found = "neither name nor gpu",
                      .accepted = "name = \"dgx-h100\" (a catalogue id or a machine file), or "
                                  "gpu = \"h100-sxm-80gb\"",
                      .hint = "`steelyard list machines` and `steelyard list gpus` show the ids"});
  }
  STEELYARD_CHECK(apply(machine, job));
  return machine;
}

Result<std::vector<facts::Machine>> Catalog::alternatives(const facts::Job& job) const {
  const facts::MachineKeys& keys = job.machine;
  std::vector<facts::Machine> found;
  if (keys.vram_gib) return found;
  const bool named = keys.name && !is_file_name(*keys.name);
  const bool own_host = keys.ram_gib || keys.cores || keys.host_tflops || keys.storage_gb_per_s ||
                        keys.storage_write_gb_per_s || keys.storage_total_gb_per_s;
  if (named && own_host) return found;
  if (!named && !keys.gpu) return found;
  const std::string& current = named ? *keys.name : *keys.gpu;
  STEELYARD_TRY(ids, ids_of_kind(named ? Kind::machines : Kind::gpus));
  for (const std::string& id : ids) {
    if (id == current) continue;
    facts::Job changed = job;
    (named ? changed.machine.name : changed.machine.gpu) = id;
    Result<facts::Machine> machine = machine_of(changed, {});
    if (machine) found.push_back(std::move(*machine));  // else: fewer GPUs than the job uses
  }
  return found;
}

}  // namespace steelyard::catalog
