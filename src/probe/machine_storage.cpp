#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "probe/machine.h"
#include "sense/mounts.h"

namespace steelyard::probe {
namespace {

using facts::Known;
using facts::Provenance;
using facts::Storage;
using facts::StorageMeasurements;
using facts::StoragePattern;
using facts::StorageRate;

// The best of a pattern over request sizes and depths: what a loader that asks well reaches.
const StorageRate* best(const StorageMeasurements& measured, StoragePattern pattern) {
  const StorageRate* found = nullptr;
  for (const StorageRate& rate : measured.rates) {
    if (rate.pattern != pattern || rate.rate.runs == 0) continue;
    if (found == nullptr || rate.rate.median > found->rate.median) found = &rate;
  }
  return found;
}

std::string note_of(const StorageMeasurements& measured, const StorageRate& rate) {
  std::string note =
      fmt::format("{}, {} requests, {} at once{}", measured.path, to_text(rate.request), rate.depth,
                  measured.direct ? ", direct" : ", through the page cache");
  if (rate.rate.warning) note += "; " + *rate.rate.warning;
  for (const std::string& warning : measured.warnings) note += "; " + warning;
  return note;
}

Known<BytesPerSecond> rate_of(const StorageMeasurements& measured, StoragePattern pattern) {
  const StorageRate* rate = best(measured, pattern);
  if (rate == nullptr) return {};
  return {rate->rate.median, Provenance::measured, note_of(measured, *rate)};
}

Known<double> operations_of(const StorageMeasurements& measured) {
  const StorageRate* most = nullptr;
  for (const StorageRate& rate : measured.rates) {
    if (rate.pattern != StoragePattern::random_read || rate.rate.runs == 0) continue;
    if (most == nullptr || rate.operations > most->operations) most = &rate;
  }
  if (most == nullptr || !(most->operations.value() > 0)) return {};
  return {most->operations.value(), Provenance::measured, note_of(measured, *most)};
}

// Best runs, as of all that goes through memory alone. Of several folders the first counts.
void add_records(facts::HostRates& rates, const StorageMeasurements& measured) {
  const char* const work = name_of(StoragePattern::cached_records);
  const auto is_record = [&](const facts::HostImageRate& rate) { return rate.work == work; };
  if (std::any_of(rates.images.begin(), rates.images.end(), is_record)) return;
  for (const StorageRate& one : measured.rates) {
    if (one.pattern != StoragePattern::cached_records || one.rate.runs == 0) continue;
    rates.images.push_back(
        {.work = work,
         .width = 0,
         .height = 0,
         .compressed = one.request,
         .threads = one.depth,
         .images = SamplesPerSecond(one.rate.high.value() / one.request.real())});
  }
}

}  // namespace

void add_storage(facts::Machine& machine, const facts::Measurements& measurements,
                 const std::vector<facts::Mount>& mounts) {
  for (const StorageMeasurements& measured : measurements.storage) {
    const facts::Mount* mount = sense::mount_of(mounts, measured.path);
    const char* name = mount != nullptr && mount->network ? "network" : "nvme";
    auto at = std::find_if(machine.storage.begin(), machine.storage.end(),
                           [&](const Storage& storage) { return storage.name == name; });
    if (at == machine.storage.end()) {
      at = machine.storage.insert(machine.storage.end(), Storage{});
      at->name = name;
    }
    const Known<BytesPerSecond> cached = rate_of(measured, StoragePattern::cached_read);
    if (cached && !at->cached_read) at->cached_read = cached;
    add_records(machine.host.rates, measured);
    const Known<BytesPerSecond> read = rate_of(measured, StoragePattern::sequential_read);
    // Of several folders on one kind of storage the fastest counts: data can be put there.
    if (!read || (at->read && *at->read > *read)) continue;
    at->read = read;
    at->write = rate_of(measured, StoragePattern::sequential_write);
    at->read_operations_per_second = operations_of(measured);
  }
}

}  // namespace steelyard::probe
