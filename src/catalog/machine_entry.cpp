#include <fmt/format.h>

#include <cmath>
#include <string>

#include "catalog/entries.h"
#include "catalog/fields.h"
#include "catalog/numa_entry.h"
#include "catalog/units.h"

namespace steelyard::catalog {
namespace {

using facts::Known;
using facts::Provenance;

Known<std::int64_t> known_count(Fields& fields, std::string_view path) {
  const std::optional<std::int64_t> count = fields.whole(path);
  if (!count) return {};
  return {*count, Provenance::catalogue, fields.note_for(path)};
}

facts::Host host_of(const facts::Value& entry, Fields& fields) {
  facts::Host host;
  host.memory = fields.known<Bytes>("host.ram_gib", kGibi);
  host.threads = known_count(fields, "host.vcpus");
  host.cores = known_count(fields, "host.physical_cores");
  host.sockets = known_count(fields, "host.numa_sockets");
  const facts::Value* own = entry.find("host");
  if (own != nullptr && own->find("socket_link_gb_per_s") != nullptr) {
    host.socket_link = fields.known<BytesPerSecond>("host.socket_link_gb_per_s", kGiga);
  }
  if (own != nullptr && own->find("gpus_per_uplink") != nullptr) {
    host.gpus_per_uplink = known_count(fields, "host.gpus_per_uplink");
  }
  host.cpu_model = fields.text("host.cpu_model");
  if (own != nullptr && own->find("numa") != nullptr)
    host.numa = numa_of(*own->find("numa"), host, fields);
  return host;
}

std::vector<facts::Storage> storage_of(Fields& fields) {
  std::vector<facts::Storage> all;
  facts::Storage local;
  local.name = "nvme";
  local.capacity = fields.known<Bytes>("storage.local_nvme_total_tb", kTera);
  local.read = fields.known<BytesPerSecond>("storage.local_nvme_read_gb_per_s", kGiga);
  const auto drives = fields.whole("storage.local_nvme_count");
  if (local.capacity || local.read || drives.value_or(0) > 0) all.push_back(std::move(local));

  facts::Storage network;
  network.name = "network";
  network.read = fields.known<BytesPerSecond>("storage.network_block_storage_gbit_per_s", kGigabit);
  network.write = network.read;
  if (network.read) all.push_back(std::move(network));
  return all;
}

std::optional<facts::Price> price_of(Fields& fields) {
  const std::optional<double> per_hour = fields.real("price.per_hour");
  facts::Price price;
  price.currency = fields.text("price.currency");
  price.date = fields.text("price.date");
  price.source = fields.text("price.source");
  if (!per_hour) return std::nullopt;
  price.per_hour = *per_hour;
  return price;
}

Known<BytesPerSecond> network_per_gpu(Fields& fields, std::int64_t gpus) {
  const std::optional<double> gbit = fields.real("network_gbit_per_s");
  if (!gbit) return {};
  return {BytesPerSecond(*gbit * kGigabit / static_cast<double>(gpus)), Provenance::derived,
          fmt::format("{} Gbit/s of the node over {} GPUs", *gbit, gpus)};
}

// Where the machine's maker names another capacity than the card's label, the card is a variant.
void take_own_memory(facts::Gpu& gpu, Fields& fields, Fields& card) {
  Known<Bytes> own = fields.known<Bytes>("gpu.vram_per_gpu_gb", kGibi);
  const Known<Bytes> label = card.known<Bytes>("memory_gb", kGibi);
  if (!own || (label && *own == *label)) return;
  own.from = Provenance::assumed;
  own.note = "the machine's own label, counted as GiB";
  gpu.memory = std::move(own);
}

// A host of an older PCIe generation than the card's halves the rate per generation.
void limit_host_link(facts::Gpu& gpu, Fields& fields, Fields& card) {
  const std::optional<std::int64_t> host = fields.whole("host.pcie_gen");
  const std::optional<std::int64_t> own = card.whole("pcie_gen");
  if (!host || !own || !gpu.host_link || *host >= *own) return;
  const double share = std::exp2(static_cast<double>(*host - *own));
  gpu.host_link = {*gpu.host_link * share, Provenance::derived,
                   fmt::format("PCIe {} of the host, not {} of the card", *host, *own)};
}

}  // namespace

Result<facts::Machine> machine_from(const facts::Value& entry, const std::filesystem::path& file,
                                    const facts::Value& gpu_entry,
                                    const std::filesystem::path& gpu_file) {
  const facts::Value* id = entry.find("id");
  const std::string* name = id == nullptr ? nullptr : id->as_text();
  Fields fields(entry, name == nullptr ? "an entry without id" : *name, file);
  STEELYARD_TRY(gpu, gpu_from(gpu_entry, gpu_file));
  facts::Machine machine;
  machine.id = fields.text("id");
  machine.provider = fields.text("provider");
  machine.name = machine.id;
  machine.kind = fields.text("kind");
  machine.gpu = std::move(gpu);
  machine.gpus = fields.whole("gpu.count").value_or(0);
  if (machine.gpus < 1) fields.complain("gpu.count", "no GPU", "a whole number from 1");
  const facts::Value* counts = entry.find("gpu");
  if (counts != nullptr && counts->find("fabric_count") != nullptr) {
    machine.fabric_gpus = known_count(fields, "gpu.fabric_count");
  }
  const auto link =
      fields.known<BytesPerSecond>("gpu.link_both_ways_gb_per_s_per_gpu", kGiga / 2.0);
  if (link && (!machine.gpu.link || *link != *machine.gpu.link)) machine.gpu.link = link;
  Fields card(gpu_entry, machine.gpu.id, gpu_file);
  take_own_memory(machine.gpu, fields, card);
  limit_host_link(machine.gpu, fields, card);
  machine.host = host_of(entry, fields);
  machine.storage = storage_of(fields);
  if (machine.gpus > 0) machine.network_per_gpu = network_per_gpu(fields, machine.gpus);
  machine.price = price_of(fields);
  machine.sources = fields.texts("source");
  machine.confidence = fields.text("confidence");
  machine.notes = fields.text("notes");
  STEELYARD_CHECK(fields.check());
  STEELYARD_CHECK(card.check());
  return machine;
}

}  // namespace steelyard::catalog
