// What PyTorch 2.6.0's own CUDACachingAllocator.cpp answered, operation by operation
// (allocator_vectors.json; its "readme" says how it was recorded), against the simulation.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <unordered_map>

#include "vectors/allocator_conf.h"
#include "vectors/vectors_folder.h"
#include "vram/caching_allocator.h"

namespace steelyard {
namespace {

using nlohmann::json;

const json& vectors() {
  static const json data = [] {
    const auto file = testing::vectors_folder() / "allocator_vectors.json";
    std::ifstream in(file);
    EXPECT_TRUE(in) << file;
    return json::parse(in);
  }();
  return data;
}

// The operations "a ID BYTES", "s ID BYTES STREAM", "f ID", "e".
class Replay {
 public:
  explicit Replay(const vram::AllocatorSettings& settings) : allocator_(settings) {}

  // False where PyTorch would raise OutOfMemoryError.
  bool run(const std::string& operation) {
    std::istringstream words(operation);
    std::string what, id;
    words >> what >> id;
    if (what == "e") {
      allocator_.empty_cache();
    } else if (what == "f") {
      const auto found = live_.find(id);
      if (found == live_.end()) return true;
      allocator_.free(found->second);
      live_.erase(found);
    } else {
      std::int64_t bytes = 0;
      int stream = 0;
      words >> bytes >> stream;
      const auto block = allocator_.try_allocate(Bytes(bytes), stream);
      if (!block) return false;
      live_[id] = *block;
    }
    return true;
  }
  [[nodiscard]] json counters() const {
    return {allocator_.allocated().value(), allocator_.reserved().value()};
  }
  [[nodiscard]] std::int64_t allocated() const { return allocator_.allocated().value(); }
  [[nodiscard]] std::int64_t reserved() const { return allocator_.reserved().value(); }

 private:
  vram::CachingAllocator allocator_;
  std::unordered_map<std::string, vram::BlockId> live_;
};

TEST(AllocatorVectors, EveryOperationOfEverySyntheticTraceAgrees) {
  ASSERT_FALSE(vectors().at("synthetic").empty());
  std::size_t number = 0;
  for (const json& trace : vectors().at("synthetic")) {
    const std::string conf = trace.at("config");
    SCOPED_TRACE("trace " + std::to_string(number++) + ", \"" + conf + "\"");
    auto settings = testing::settings_from_conf(conf);
    settings.device_bytes = Bytes(trace.at("device_bytes").get<std::int64_t>());
    Replay replay(settings);
    const json& after = trace.at("after");
    ASSERT_EQ(trace.at("ops").size(), after.size());
    for (std::size_t i = 0; i < after.size(); ++i) {
      const std::string operation = trace.at("ops")[i];
      const json got = replay.run(operation) ? replay.counters() : json(nullptr);
      ASSERT_EQ(got, after[i]) << "operation " << i << ": " << operation;
    }
  }
}

// The counters of one recorded training step by phase, whose ends "p NAME" marks; a phase's peak
// begins with what the phase before left.
json phases_of_recorded_step(const std::string& conf) {
  Replay replay(testing::settings_from_conf(conf));
  std::int64_t peak_allocated = 0, peak_reserved = 0;
  json phases = json::object();
  for (const std::string operation : vectors().at("tiny_training_step").at("trace")) {
    if (operation.starts_with("p ")) {
      phases[operation.substr(2)] = {{"allocated", replay.allocated()},
                                     {"allocated_peak", peak_allocated},
                                     {"reserved", replay.reserved()},
                                     {"reserved_peak", peak_reserved}};
      peak_allocated = replay.allocated();
      peak_reserved = replay.reserved();
    } else {
      EXPECT_TRUE(replay.run(operation)) << operation;
    }
    peak_allocated = std::max(peak_allocated, replay.allocated());
    peak_reserved = std::max(peak_reserved, replay.reserved());
  }
  return phases;
}

// The second step's figures as allocator_ref.py, the reference model that came with the vectors,
// gives them for the same trace; and PyTorch's own for every phase, where training_steps holds the
// run.
TEST(AllocatorVectors, RecordedTrainingStepUnderThreeSettings) {
  const auto check = [](const std::string& conf, const std::string& phase, const json& expected) {
    const json got = phases_of_recorded_step(conf).at(phase);
    EXPECT_EQ(json({got.at("allocated"), got.at("allocated_peak"), got.at("reserved"),
                    got.at("reserved_peak")}),
              expected)
        << conf << " " << phase;
  };
  check("", "forward1", {82689024, 92938240, 102760448, 102760448});
  check("", "backward1", {46817792, 103169024, 125829120, 125829120});
  check("", "optimizer1", {46817792, 59011584, 125829120, 125829120});
  check("expandable_segments:True", "forward1", {81951744, 92200960, 102760448, 102760448});
  check("expandable_segments:True", "backward1", {46817792, 102431744, 125829120, 125829120});
  check("expandable_segments:True", "optimizer1", {46817792, 58520064, 125829120, 125829120});
  check("roundup_power2_divisions:4", "forward1", {84724736, 95219712, 113246208, 113246208});
  check("roundup_power2_divisions:4", "backward1", {47309312, 105696256, 115343360, 115343360});
  check("roundup_power2_divisions:4", "zero_grad1", {35483648, 47309312, 115343360, 115343360});
  for (const json& run : vectors().at("training_steps")) {
    const json& step = vectors().at("tiny_training_step");
    if (run.at("dims") != step.at("dims") || run.at("mode") != step.at("mode")) continue;
    for (const auto& [conf, recorded] : run.at("results").items()) {
      const json got = phases_of_recorded_step(conf == "default" ? "" : conf);
      for (const auto& [phase, counters] : recorded.items()) {
        EXPECT_EQ(got.at(phase), counters) << conf << " " << phase;
      }
    }
  }
}

}  // namespace
}  // namespace steelyard
