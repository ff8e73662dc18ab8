// Jobs that nobody wrote: every model of the catalogue, and combinations of keys taken by chance.
// A job is planned or refused with a message; the program never crashes, and no figure is without a
// number.
#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "input/run_program.h"

namespace steelyard {
namespace {

std::vector<std::string> catalogue_models() {
  std::vector<std::string> ids;
  const auto folder = std::filesystem::path(STEELYARD_SOURCE_DIR) / "catalog/models";
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    if (file.path().extension() == ".json") ids.push_back(file.path().stem().string());
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

// Reads this file as a job; what it says when it goes wrong is the job itself.
void expect_planned_or_refused(const std::string& job) {
  const TemporaryFolder folder;
  const auto file = folder.write("job.json", job);
  const auto ran = testing::run_steelyard({"plan", file.string(), "--json"});
  const bool planned = ran.status == 0 || ran.status == 3;
  ASSERT_TRUE(planned || ran.status == 2) << ran.status << " " << job << "\n" << ran.messages;
  if (!planned) {
    EXPECT_NE(ran.messages.find("accepted"), std::string::npos) << job << "\n" << ran.messages;
    return;
  }
  for (const char* none : {": nan", ": inf", ": -nan", ": -inf"}) {
    EXPECT_EQ(ran.output.find(none), std::string::npos) << job;
  }
}

class RandomJobs : public ::testing::TestWithParam<int> {};

class Chance {
 public:
  explicit Chance(int seed) : random_(static_cast<unsigned>(seed)) {}
  bool one_in(unsigned count) { return random_() % count == 0; }
  std::string of(const std::vector<std::string>& choices) {
    return choices[random_() % choices.size()];
  }

 private:
  std::mt19937 random_;
};

std::string quoted(const std::string& word) {
  return '"' + word + '"';
}

struct Key {
  const char* name;
  unsigned one_in;
  std::vector<std::string> values;
};

std::string table_of(Chance& chance, const std::vector<Key>& keys) {
  std::string text;
  for (const Key& key : keys) {
    if (!chance.one_in(key.one_in)) continue;
    text += (text.empty() ? "" : ", ") + quoted(key.name) + ": " + chance.of(key.values);
  }
  return "{" + text + "}";
}

std::string random_job(int seed) {
  Chance chance(seed);
  static const std::vector<std::string> kModels = catalogue_models();
  const std::vector<Key> train = {
      {"micro_batch", 1, {"1", "2", "3", "8"}},
      {"precision",
       1,
       {"\"bf16-mixed\"", "\"bf16-mixed\"", "\"fp16-mixed\"", "\"fp32\"", "\"bf16\""}},
      {"sequence_length", 2, {"128", "512", "2048"}},
      {"optimizer",
       3,
       {"\"adamw\"", "\"sgd\"", "\"adafactor\"", "\"adamw8bit\"", "\"muon\"", "\"lion\""}},
      {"recompute", 3, {"\"none\"", "\"full\"", "\"selective\"", "\"selective-op\""}},
      {"gradient_accumulation", 3, {"1", "4", "8"}},
      {"compile", 6, {"true"}},
      {"method", 7, {"\"lora\""}},
      {"loss", 9, {"\"full\"", "\"chunked\"", "\"fused\""}},
      {"attention", 6, {"\"flash\"", "\"efficient\"", "\"math\""}},
      {"objective", 12, {"\"dpo\"", "\"kto\"", "\"reward\"", "\"grpo\""}},
      {"image_size", 9, {"96", "224", "512"}}};
  const std::vector<Key> parallel = {
      {"sharding", 2, {"\"zero1\"", "\"zero2\"", "\"zero3\"", "\"fsdp\"", "\"fsdp1\"", "\"hsdp\""}},
      {"tensor", 4, {"2", "4"}},
      {"pipeline", 5, {"2", "4"}},
      {"context", 8, {"2"}},
      {"expert", 8, {"2", "4"}},
      {"sequence_parallel", 8, {"true"}},
      {"schedule", 8, {"\"1f1b\"", "\"interleaved\"", "\"gpipe\"", "\"zero-bubble\""}},
      {"virtual_stages", 9, {"2"}}};
  const std::vector<Key> offload = {{"optimizer", 8, {"\"cpu\""}},
                                    {"parameters", 12, {"\"cpu\""}},
                                    {"activations", 12, {"\"cpu\""}}};
  const std::string framework =
      chance.of({"pytorch", "torchtitan", "megatron", "deepspeed", "composer", "transformers",
                 "litgpt", "torchtune", "timm", "tensorflow", "jax"});
  const std::string machine = chance.of({"dgx-h100", "dgx-a100-80gb", "dgx-2", "dgx-b200"});
  return "{\"model\": {\"config\": " + quoted(chance.of(kModels)) +
         "}, \"framework\": " + quoted(framework) + ", \"machine\": {\"name\": " + quoted(machine) +
         "}, \"train\": " + table_of(chance, train) +
         ", \"parallel\": " + table_of(chance, parallel) +
         ", \"offload\": " + table_of(chance, offload) + "}";
}

// Twelve jobs each, so that a test takes about a second.
TEST_P(RandomJobs, ArePlannedOrRefused) {
  for (int i = 0; i < 12; ++i) expect_planned_or_refused(random_job(100 * GetParam() + i));
}

INSTANTIATE_TEST_SUITE_P(Chance, RandomJobs, ::testing::Range(0, 12));

class CatalogueModels : public ::testing::TestWithParam<std::string> {};

// With every key left to its default; what is refused lacks a size that the model does not state.
TEST_P(CatalogueModels, PlanByThemselves) {
  expect_planned_or_refused("{\"model\": {\"config\": " + quoted(GetParam()) +
                            "}, \"machine\": {\"name\": \"dgx-h100\"}, "
                            "\"train\": {\"micro_batch\": 2, \"precision\": \"bf16-mixed\"}}");
}

INSTANTIATE_TEST_SUITE_P(All, CatalogueModels, ::testing::ValuesIn(catalogue_models()),
                         [](const auto& model) {
                           std::string name = model.param;
                           std::replace_if(
                               name.begin(), name.end(), [](char c) { return !std::isalnum(c); },
                               '_');
                           return name;
                         });

}  // namespace
}  // namespace steelyard
