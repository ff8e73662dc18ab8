// The program's JSON Schemas, judged by an independent validator.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>

#include "codec/codec.h"
#include "codec/plan_example.h"
#include "codec/temporary_folder.h"

namespace steelyard::codec {
namespace {

using facts::Array;
using facts::Object;
using facts::Value;

struct Outcome {
  int status = 0;
  std::string output;
};

Outcome run(const std::string& command) {
  Outcome outcome;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  std::array<char, 4096> block{};
  std::size_t count = 0;
  while ((count = fread(block.data(), 1, block.size(), pipe)) > 0) {
    outcome.output.append(block.data(), count);
  }
  outcome.status = pclose(pipe);
  return outcome;
}

// Debian's package belongs to Debian's interpreter, which need not be the one CMake found.
const std::string& python() {
  static const std::string found = [] {
    for (const char* candidate : {"/usr/bin/python3", STEELYARD_PYTHON}) {
      if (run(std::string(candidate) + " -c 'import jsonschema'").status == 0) {
        return std::string(candidate);
      }
    }
    return std::string();
  }();
  return found;
}

void check(SchemaOf what, Array valid, Array invalid) {
  ASSERT_FALSE(python().empty()) << "install python3-jsonschema";
  const TemporaryFolder folder;
  const Value task(Object{
      {"schema", schema(what)}, {"valid", std::move(valid)}, {"invalid", std::move(invalid)}});
  const auto file = folder.write("task.json", to_json(task));
  const Outcome outcome =
      run(python() + " " STEELYARD_TESTS_DIR "/codec/check_schema.py " + file.string());
  EXPECT_EQ(outcome.status, 0) << outcome.output;
}

Value toml(const std::string& text) {
  const auto value = parse(text, Format::toml, "x");
  EXPECT_TRUE(value) << to_text(value.error());
  return value ? *value : Value();
}

TEST(JobSchema, AgreesWithTheReader) {
  const char* const good[] = {
      "",
      "[model]\nconfig = 'gpt2'",
      "[model]\nconfig = { a = 1 }\nset = { b = 2 }\ncompanions = [{ config = 'vae' }]",
      "[train]\noptimizer = 'adamw'\nrecompute = 'full'\nimage_size = [1, 2]",
      "[train]\noptimizer = { fused = true }\nrecompute = { every = 2 }",
      "[train]\nrecompute = { layers = 8, method = 'block' }\nfused_kernels = ['rope']",
      "[train.fp8]\nrecipe = 'rowwise'",
      "[data]\nsamples = 1e6",
      "[offload]\nactivations = 'cpu'",
      "[import]\nmegatron = 'x.yaml'\ndeepspeed = { a = 1 }",
  };
  const char* const broken[] = {
      "nonsense = 1",
      "name = 3",
      "framework = 3",
      "[train]\nprecision = 'bf17'",
      "[model]\ncompanions = [{ held = 'load' }]",
      "[train]\nmicro_batch = 0",
      "[train]\nmicro_batch = 1.5",
      "[train]\nmicrobatch = 1",
      "[train]\noptimizer = 'adamx'",
      "[train]\noptimizer = { fusd = true }",
      "[train]\nrecompute = { every = 2, layers = 3 }",
      "[train]\nrecompute = {}",
      "[train]\nimage_size = [1]",
      "[train]\nfused_kernels = ['rop']",
      "[train.lora]\ndropout = 1.5",
      "[offload]\nactivations = 'nvme'",
      "[import]\nmegatron = 3",
      "[machine]\nnodes = 10000000",
  };
  Array valid, invalid;
  for (const char* text : good) {
    valid.push_back(toml(text));
    Value with_model = toml(text);  // the reader wants a model as well, wherever it comes from
    if (with_model.find("model") == nullptr && with_model.find("import") == nullptr) {
      with_model.set("model", Object{{"config", "gpt2"}});
    }
    EXPECT_TRUE(job_from(with_model, "x")) << text;
  }
  for (const char* text : broken) {
    invalid.push_back(toml(text));
    Value with_model = toml(text);
    if (with_model.find("import") == nullptr) with_model.set("import", Object{{"megatron", "x"}});
    EXPECT_FALSE(job_from(with_model, "x")) << text;
  }
  check(SchemaOf::job, std::move(valid), std::move(invalid));
}

TEST(JobSchema, HoldsEveryKeyWithItsMeaning) {
  const Value whole = schema(SchemaOf::job);
  for (const auto& [section, table] : *whole.find("properties")->as_object()) {
    ASSERT_NE(table.find("description"), nullptr) << section;
    const Value* properties = table.find("properties");
    if (properties == nullptr) continue;
    for (const auto& [key, property] : *properties->as_object()) {
      EXPECT_NE(property.find("description"), nullptr) << section << "." << key;
    }
  }
}

Value without(Value value, const std::string& key) {
  Object& members = *value.as_object();
  std::erase_if(members, [&](const auto& member) { return member.first == key; });
  return value;
}

Value with(Value value, const std::string& key, Value member) {
  value.set(key, std::move(member));
  return value;
}

TEST(PlanSchema, AcceptsWrittenPlansAndNothingLess) {
  const Value example = to_value(example_plan());
  facts::Plan with_timeline = example_plan();
  with_timeline.vram.timeline.resize(2);
  Array valid = {example, to_value(facts::Plan{}), to_value(with_timeline)};

  Array invalid = {Value(Object{}), with(example, "surprise", 1),
                   with(example, "schema", "steelyard.plan/2"), with(example, "fits", "yes")};
  for (const auto& [key, member] : *example.as_object()) invalid.push_back(without(example, key));
  const Value& vram = *example.find("vram");
  for (const auto& [key, member] : *vram.as_object()) {
    invalid.push_back(with(example, "vram", without(vram, key)));
  }
  invalid.push_back(with(example, "vram", with(vram, "peak_allocated", Value())));
  invalid.push_back(with(example, "vram", with(vram, "peak_allocated", 1.5)));
  const Value& job = *example.find("job");
  invalid.push_back(with(example, "job", with(job, "name", "without its origin")));
  check(SchemaOf::plan, std::move(valid), std::move(invalid));
}

TEST(WhySchema, AcceptsWhatIsWrittenAndNothingLess) {
  facts::VramWhy why;
  facts::TensorGroup stays;
  stays.operation = "optimizer state";
  stays.layer = "h.0-11";
  stays.tensors = 24;
  stays.shape = {768, 3072};
  stays.dtype = "fp32";
  facts::TensorGroup freed = stays;
  freed.freed = facts::PeakAt{"backward", "h.0-11", "mm"};
  why.tensors = {stays, freed};
  why.kinds = {"data-parallel rank"};
  const Value example = to_value(why);
  const Value& tensors = *example.find("tensors");
  EXPECT_TRUE(tensors.as_array()->at(0).find("freed")->is_null());
  EXPECT_EQ(*tensors.as_array()->at(1).find("freed")->find("operator")->as_text(), "mm");
  Array valid = {example, to_value(facts::VramWhy{})};
  Array invalid = {Value(Object{}), with(example, "surprise", 1),
                   with(example, "schema", "steelyard.why/2"), with(example, "workspaces", 0.5),
                   with(example, "tensors", Array{Value(Object{})})};
  for (const auto& [key, member] : *example.as_object()) invalid.push_back(without(example, key));
  check(SchemaOf::why, std::move(valid), std::move(invalid));
}

TEST(WhyPaceSchema, AcceptsWhatIsWrittenAndNothingLess) {
  facts::PaceWhy why;
  why.job = "job";
  why.pace.step = Seconds(0.5);
  facts::PaceRow row;
  row.operation = "mm";
  row.bound = facts::PaceBound::host_link;
  row.step = row.busy = Seconds(0.25);
  why.rows = {row};
  why.helps = {{"offload less", Seconds(0.25)}};
  const Value example = to_value(why);
  EXPECT_EQ(*example.find("rows")->as_array()->at(0).find("bound")->as_text(), "host_link");
  Array valid = {example, to_value(facts::PaceWhy{})};
  Array invalid = {Value(Object{}), with(example, "surprise", 1),
                   with(example, "rows", Array{Value(Object{})})};
  for (const auto& [key, member] : *example.as_object()) invalid.push_back(without(example, key));
  check(SchemaOf::why_pace, std::move(valid), std::move(invalid));
}

TEST(ModelSchema, DescribesWhatIsWritten) {
  facts::ModelTable table;
  table.name = "gpt2";
  table.held = {{"fp32", Parameters(7), Bytes(28)}};
  facts::ModelPart part;
  part.name = "transformer.h";
  part.operators.emplace_back();
  part.operators.back().output = {1, 2, 3};
  table.parts = {part};
  facts::ModelPartWeights weights;
  weights.weights.push_back({"attn.c_attn.weight", {768, 2304}, ""});
  table.weights = {weights};
  const Value example = to_value(table);
  Array valid = {example, to_value(facts::ModelTable{})};
  Array invalid = {Value(Object{}), with(example, "surprise", 1), with(example, "saved", 0.5),
                   with(example, "parts", Array{Value(Object{})})};
  for (const auto& [key, member] : *example.as_object()) invalid.push_back(without(example, key));
  check(SchemaOf::model, std::move(valid), std::move(invalid));
}

TEST(MachineSchema, AgreesWithTheReader) {
  const Value example = to_value(example_machine());
  const Value small = *parse(R"({"schema": "steelyard.machine/1", "gpus": 1,
      "gpu": {"name": "card", "memory_bytes": 85899345920, "power_watts": null},
      "host": {"memory_bytes": {"value": 1099511627776}}})",
                             Format::json, "x");
  Array valid = {example, small, to_value(facts::Machine{})};
  for (const auto& machine : valid) EXPECT_TRUE(machine_from(machine, "x"));
  Array invalid = {Object{},
                   without(example, "schema"),
                   without(small, "gpu"),
                   with(example, "gpus", -1),
                   with(example, "gpu", Object{{"name", "card"}, {"memory_gib", 80}}),
                   with(example, "gpu", Object{{"name", "card"}, {"memory_bytes", "80GB"}}),
                   with(example, "host", Object{{"cores", Object{{"from", "measured"}}}}),
                   with(example, "surprise", 1)};
  for (const auto& machine : invalid) EXPECT_FALSE(machine_from(machine, "x"));
  check(SchemaOf::machine, std::move(valid), std::move(invalid));
}

TEST(CasesSchema, AcceptsEveryCarriedFile) {
  Array valid;
  const auto folder = std::filesystem::path(STEELYARD_SOURCE_DIR) / "validation" / "cases";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".json") valid.push_back(*read_value(entry.path()));
  }
  ASSERT_FALSE(valid.empty());
  const auto one = [](const char* member) {
    return *parse(
        std::string(R"({"schema": "steelyard.cases/1", "source": {}, "cases": [)") + member + "]}",
        Format::json, "x");
  };
  Array invalid = {Object{},
                   one(R"({"id": "a", "measured": {}})"),
                   one(R"({"id": "a", "job": {}})"),
                   one(R"({"id": "a", "job": {}, "measured": {"vram_peak": 1}})"),
                   one(R"({"id": "a", "job": {}, "measured": {"vram_meter": "rss"}})"),
                   one(R"({"id": "a", "job": {"train": {"microbatch": 1}}, "measured": {}})")};
  check(SchemaOf::cases, std::move(valid), std::move(invalid));
}

}  // namespace
}  // namespace steelyard::codec
