// What was measured of memory and decoding, as a machine file keeps it.
#include <fmt/format.h>

#include <map>

#include "probe/machine.h"

namespace steelyard::probe {
namespace {

using facts::Known;
using facts::Provenance;

// The best run of each figure, as for the decode model: what disturbs makes it slower, never
// faster.

// Every node's threads read their own node's memory, all at the same time in a job: the sum. Rates
// of nodes were taken one after the other.
Known<BytesPerSecond> memory_bandwidth(const facts::MemoryMeasurements& memory) {
  std::map<std::int64_t, const facts::MemoryBandwidth*> nodes;
  for (const facts::MemoryBandwidth& one : memory.rates) {
    if (one.core_node != one.memory_node || one.read.runs == 0) continue;
    const facts::MemoryBandwidth*& most = nodes[one.core_node];
    if (most == nullptr || one.threads > most->threads) most = &one;
  }
  if (nodes.empty()) return {};
  BytesPerSecond sum;
  for (const auto& [node, one] : nodes) sum += one->read.high;
  return {sum, Provenance::measured,
          fmt::format("reading, {}, {} node{}", memory.instructions, nodes.size(),
                      nodes.size() == 1 ? "" : "s")};
}

void add_memory(facts::Host& host, const facts::MemoryMeasurements& memory) {
  host.memory_bandwidth = memory_bandwidth(memory);
  for (const facts::MemoryBandwidth& one : memory.rates) {
    host.rates.memory.push_back({.core_node = one.core_node,
                                 .memory_node = one.memory_node,
                                 .threads = one.threads,
                                 .read = one.read.high,
                                 .write = one.write.high,
                                 .copy = one.copy.high,
                                 .triad = one.triad.high});
  }
}

void add_images(facts::Host& host, const facts::ImageMeasurements& images) {
  for (const facts::ImageRate& one : images.rates) {
    if (one.images.runs == 0 || !(one.images.high.value() > 0)) continue;
    host.rates.images.push_back({.work = facts::name_of(one.work),
                                 .width = one.width,
                                 .height = one.height,
                                 .compressed = one.compressed,
                                 .threads = one.threads,
                                 .images = one.images.high});
  }
  for (const facts::DecodeModel& model : images.models) {
    host.rates.decode.push_back({.work = facts::name_of(model.work),
                                 .per_pixel = model.per_pixel,
                                 .per_byte = model.per_byte});
  }
  host.rates.source = fmt::format("{}, {} images", images.decoder, images.source);
}

}  // namespace

void add_rates(facts::Machine& machine, const facts::Measurements& measurements) {
  if (measurements.memory) add_memory(machine.host, *measurements.memory);
  for (const facts::HostRate& rate : measurements.host) {
    if (rate.threads != 1 || rate.memory_copy.runs == 0) continue;
    machine.host.thread_copy = {rate.memory_copy.high, Provenance::measured, "memcpy, one thread"};
  }
  if (measurements.images) add_images(machine.host, *measurements.images);
}

}  // namespace steelyard::probe
