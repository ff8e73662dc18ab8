#include <gtest/gtest.h>

#include "codec/codec.h"
#include "codec/machine_example.h"

namespace steelyard::codec {
namespace {

using facts::Provenance;
using facts::Value;

TEST(MachineFile, ReadsBackAsItWasWritten) {
  const facts::Machine machine = example_machine();
  const Value written = to_value(machine);
  const std::string text = to_json(written);
  const auto value = parse(text, Format::json, "machine.json");
  ASSERT_TRUE(value) << to_text(value.error());
  const auto again = machine_from(*value, "machine.json");
  ASSERT_TRUE(again) << to_text(again.error()) << text;
  EXPECT_EQ(to_value(*again), written);
  EXPECT_EQ(again->gpu.memory->value(), machine.gpu.memory->value());
  EXPECT_EQ(again->gpu.memory.from, Provenance::measured);
  EXPECT_EQ(again->gpu.memory.note, machine.gpu.memory.note);
  EXPECT_FALSE(again->gpu.peak.fp8) << "what is unknown stays unknown";
  EXPECT_EQ(again->storage.size(), 2U);
  EXPECT_EQ(again->price->per_hour, 98.32);
  EXPECT_EQ(*again->host.memory_bandwidth, BytesPerSecond(4e11));
  EXPECT_EQ(again->host.rates.images.at(0).images, SamplesPerSecond(651.5));
  EXPECT_EQ(again->host.rates.model_of("jpeg")->per_byte, Seconds(6.75e-9));
}

TEST(MachineFile, AnUnknownMachineReadsBackToo) {
  const Value written = to_value(facts::Machine{});
  EXPECT_TRUE(written.find("price")->is_null());
  EXPECT_TRUE(written.find("gpu")->find("memory_bytes")->find("value")->is_null());
  const auto again = machine_from(written, "x");
  ASSERT_TRUE(again) << to_text(again.error());
  EXPECT_EQ(to_value(*again), written);
}

constexpr const char* kSmall = R"({"schema": "steelyard.machine/1", "gpus": 8,
  "gpu": {"name": "card", "memory_bytes": MEMORY}, "host": {}})";

Result<facts::Machine> with_memory(const std::string& memory) {
  std::string text = kSmall;
  text.replace(text.find("MEMORY"), 6, memory);
  return machine_from(*parse(text, Format::json, "m.json"), "m.json");
}

TEST(MachineFile, AFigureIsABareNumberATableOrNull) {
  const auto bare = with_memory("85899345920");
  ASSERT_TRUE(bare) << to_text(bare.error());
  EXPECT_EQ(*bare->gpu.memory, Bytes(85899345920));
  EXPECT_EQ(bare->gpu.memory.from, Provenance::given);

  const auto table = with_memory(R"({"value": 5, "from": "derived", "note": "why"})");
  ASSERT_TRUE(table);
  EXPECT_EQ(table->gpu.memory.from, Provenance::derived);
  EXPECT_EQ(table->gpu.memory.note, "why");

  const auto without_from = with_memory(R"({"value": 5})");
  ASSERT_TRUE(without_from);
  EXPECT_EQ(without_from->gpu.memory.from, Provenance::given);

  for (const char* unknown : {"null", R"({"value": null, "from": "unknown"})"}) {
    const auto machine = with_memory(unknown);
    ASSERT_TRUE(machine) << unknown;
    EXPECT_FALSE(machine->gpu.memory) << unknown;
  }
}

TEST(MachineFile, RefusesWhatIsNoFigure) {
  for (const char* memory : {"\"80GB\"", "0", "-1", "1.5", "1e30", "{}", R"({"from": "measured"})",
                             R"({"value": 5, "from": "guessed"})", R"({"value": 5, "unit": "GiB"})",
                             "[]", R"({"value": 5, "note": 7})"}) {
    const auto machine = with_memory(memory);
    ASSERT_FALSE(machine) << memory;
    EXPECT_EQ(machine.error().subject, "gpu.memory_bytes") << to_text(machine.error());
    EXPECT_EQ(machine.error().file, "m.json");
  }
}

TEST(MachineFile, RefusesUnknownAndMissingKeysAndOtherSchemas) {
  const auto refused = [](const char* text) {
    auto machine = machine_from(*parse(text, Format::json, "m"), "m");
    EXPECT_FALSE(machine) << text;
    return machine ? Error{} : machine.error();
  };
  EXPECT_EQ(refused("{}").code, ErrorCode::missing_value);
  EXPECT_EQ(refused(R"({"schema": "steelyard.machine/9", "gpus": 1, "gpu": {"name": "c"},
                        "host": {}})")
                .subject,
            "schema");
  EXPECT_EQ(
      refused(R"({"schema": "steelyard.machine/1", "gpus": 1, "gpu": {}, "host": {}})").subject,
      "gpu.name");
  EXPECT_EQ(refused(R"({"schema": "steelyard.machine/1", "gpus": 1, "host": {},
                        "gpu": {"name": "c", "memory_byte": 80}})")
                .hint,
            "did you mean gpu.memory_bytes?");
  EXPECT_EQ(refused("[1]").subject, "machine");
}

Result<facts::Machine> with_numa(const std::string& numa) {
  const std::string text = R"({"schema": "steelyard.machine/1", "gpus": 2,
    "gpu": {"name": "card"}, "host": {"numa": )" +
                           numa + "}}";
  return machine_from(*parse(text, Format::json, "m.json"), "m.json");
}

TEST(MachineFile, NodesAndWhatHangsOnThem) {
  const auto machine = with_numa(
      R"({"nodes": [{"id": 0, "memory_bytes": 1024, "cpus": "0-3"}, {"id": 2, "socket": 1}],
          "gpus": [{"numa_node": 2}, {"numa_node": null}], "drives": [{"name": "nvme0n1"}]})");
  ASSERT_TRUE(machine) << to_text(machine.error());
  const facts::HostNuma& numa = machine->host.numa;
  EXPECT_EQ(numa.nodes[0].memory.value, Bytes(1024));
  EXPECT_EQ(numa.nodes[0].memory.from, Provenance::given);
  EXPECT_EQ(numa.nodes[1].socket.value, 1);
  EXPECT_EQ(numa.gpus[0].node.value, 2);
  EXPECT_FALSE(numa.gpus[1].node);
  EXPECT_FALSE(numa.drives[0].node);
}

TEST(MachineFile, WrongNodesAreRefusedByName) {
  const std::pair<const char*, const char*> wrong[] = {
      {R"({"nodes": [{"id": 0}, {"id": 0}]})", "host.numa.nodes[1].id"},
      {R"({"nodes": [{"id": 0, "cpus": "0..3"}]})", "host.numa.nodes[0].cpus"},
      {R"({"nodes": [{"id": 0}], "gpus": [{"numa_node": 0}]})", "host.numa.gpus"},
      {R"({"nodes": [{"id": 0}], "nics": [{"numa_node": 1}]})", "host.numa.nics[0].numa_node"},
      {R"({"drives": [{"name": "sda", "numa_node": 0}]})", "host.numa.drives[0].numa_node"}};
  for (const auto& [numa, key] : wrong) {
    const auto machine = with_numa(numa);
    ASSERT_FALSE(machine) << numa;
    EXPECT_EQ(machine.error().subject, key);
    EXPECT_EQ(machine.error().file, "m.json");
  }
}

}  // namespace
}  // namespace steelyard::codec
