// A machine file: read and written by the same table of fields.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "codec/codec.h"
#include "codec/machine_fields.h"
#include "codec/reader.h"
#include "codec/write_text.h"
#include "codec/writer.h"

namespace steelyard::codec {
namespace {

Error in_numa(std::string key, std::string found, std::string accepted) {
  return {.code = ErrorCode::bad_input,
          .subject = "host.numa." + std::move(key),
          .found = std::move(found),
          .accepted = std::move(accepted)};
}

Result<void> check_nodes(const facts::HostNuma& numa) {
  std::set<std::int64_t> ids;
  for (std::size_t i = 0; i < numa.nodes.size(); ++i) {
    const facts::HostNode& node = numa.nodes[i];
    if (!ids.insert(node.id).second) {
      return fail(in_numa(fmt::format("nodes[{}].id", i), fmt::format("{} again", node.id),
                          "each node once"));
    }
    if (!node.cpus.empty() && !facts::threads_of_list(node.cpus)) {
      return fail(in_numa(fmt::format("nodes[{}].cpus", i), json_text(node.cpus),
                          "hardware threads as the kernel lists them: 0-15,128-143"));
    }
  }
  return {};
}

// Each thing on a node that the file has.
Result<void> check_near(const facts::HostNuma& numa, const std::vector<facts::NearNode>& things,
                        const char* key) {
  for (std::size_t i = 0; i < things.size(); ++i) {
    const auto& node = things[i].node;
    const bool there = !node || std::ranges::any_of(numa.nodes, [&](const facts::HostNode& one) {
      return one.id == *node;
    });
    if (!there) {
      return fail(in_numa(
          fmt::format("{}[{}].numa_node", key, i), fmt::format("{}", *node),
          numa.nodes.empty() ? "host.numa.nodes beside it" : "the id of one of host.numa.nodes"));
    }
  }
  return {};
}

// What the table of fields cannot say of nodes and what hangs on them.
Result<void> check_numa(const facts::Machine& machine) {
  const facts::HostNuma& numa = machine.host.numa;
  STEELYARD_CHECK(check_nodes(numa));
  if (!numa.gpus.empty() && std::ssize(numa.gpus) != machine.gpus) {
    return fail(in_numa("gpus", fmt::format("{} of them", numa.gpus.size()),
                        fmt::format("one for each of the machine's {} GPUs", machine.gpus)));
  }
  STEELYARD_CHECK(check_near(numa, numa.gpus, "gpus"));
  STEELYARD_CHECK(check_near(numa, numa.nics, "nics"));
  return check_near(numa, numa.drives, "drives");
}

}  // namespace

Result<facts::Machine> machine_from(const facts::Value& value, const std::string& name) {
  if (value.as_object() == nullptr) {
    Error error = wrong(value, "a table of machine keys");
    error.subject = "machine";
    error.file = name;
    return fail(std::move(error));
  }
  facts::Machine machine;
  Reading reading;
  reading.file = name;
  Reader reader(reading, value.as_object(), "");
  machine_fields(reader, machine);
  reader.finish();
  STEELYARD_CHECK(reading.outcome());
  if (Result<void> checked = check_numa(machine); !checked) {
    Error error = std::move(checked).error();
    error.file = name;
    return fail(std::move(error));
  }
  return machine;
}

facts::Value to_value(const facts::Machine& machine) {
  facts::Machine copy = machine;
  Writer writer;
  machine_fields(writer, copy);
  return writer.take();
}

}  // namespace steelyard::codec
