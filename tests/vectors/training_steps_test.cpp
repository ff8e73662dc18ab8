// Whole recorded training steps through our own programs: the events of one step in their order,
// live bytes and peaks of every phase, and what PyTorch's caching allocator answered to them.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

#include "vectors/allocator_conf.h"
#include "vectors/recorded_step.h"

namespace steelyard::testing {
namespace {

using facts::Value;

const Value& allocator_vectors() {
  static const Value file = [] {
    auto read = codec::read_value(vectors_folder() / "allocator_vectors.json");
    EXPECT_TRUE(read) << (read ? "" : to_text(read.error()));
    return read.value_or(Value());
  }();
  return file;
}

std::string name_of(const Value& row) {
  return name_of_row(row) + " " + text(row, "mode") + " " + text(row, "optimizer");
}

std::vector<RecordedPhase> played(const Value& row) {
  const step::Program program = recorded_program(row);
  return WrittenOut(program, 2).phases();
}

// One line per birth (its bytes), and one per run of deaths (numbers of the tensors, sorted): which
// of two tensors dies first, with no birth between, changes nothing for an allocator.
class Lines {
 public:
  void birth(const std::string& id, const std::string& bytes) {
    if (bytes == "0") return;  // nothing is allocated
    end_of_deaths();
    numbers_[id] = next_++;
    lines_.push_back("a " + bytes);
  }
  void death(const std::string& id) {
    const auto found = numbers_.find(id);
    if (found == numbers_.end()) return;
    dying_.insert(found->second);
    numbers_.erase(found);
  }
  void phase(const std::string& name) {
    end_of_deaths();
    lines_.push_back("p " + name);
  }
  [[nodiscard]] const std::vector<std::string>& result() const { return lines_; }

 private:
  void end_of_deaths() {
    if (dying_.empty()) return;
    std::string line = "f";
    for (int number : dying_) line += " " + std::to_string(number);
    lines_.push_back(line);
    dying_.clear();
  }
  std::unordered_map<std::string, int> numbers_;
  std::set<int> dying_;
  std::vector<std::string> lines_;
  int next_ = 0;
};

TEST(TrainingSteps, EventsOfTheRecordedStepInTheirOrder) {
  const Value& recorded = *allocator_vectors().find("tiny_training_step");
  Lines theirs;
  for (const Value& entry : *recorded.find("trace")->as_array()) {
    std::istringstream words(*entry.as_text());
    std::string what, id, bytes;
    words >> what >> id >> bytes;
    if (what == "a") theirs.birth(id, bytes);
    if (what == "f") theirs.death(id);
    if (what == "p") theirs.phase(id);
  }
  Lines ours;
  for (const RecordedPhase& phase : played(recorded)) {
    for (const Happening& event : phase.happenings) {
      const std::string id = std::to_string(event.tensor);
      if (event.born) {
        ours.birth(id, std::to_string(event.bytes.value()));
      } else {
        ours.death(id);
      }
    }
    if (phase.name != "setup") ours.phase(phase.name);
  }
  ASSERT_GT(theirs.result().size(), 1000u);
  ASSERT_EQ(ours.result().size(), theirs.result().size());
  for (std::size_t i = 0; i < theirs.result().size(); ++i) {
    ASSERT_EQ(ours.result()[i], theirs.result()[i]) << "line " << i;
  }
}

// Live bytes, each storage rounded up to 512, and their peak in each phase.
TEST(TrainingSteps, LiveBytesAndPeaksOfEveryPhase) {
  const std::vector<Value> rows = rows_of("timeline");
  ASSERT_GE(rows.size(), 18u);
  for (const Value& row : rows) {
    SCOPED_TRACE(name_of(row));
    EXPECT_EQ(model::parameter_count(recorded_graph(row)).value(), whole(row, "params"));
    std::unordered_map<std::int64_t, Bytes> alive;
    Bytes live;
    for (const RecordedPhase& phase : played(row)) {
      Bytes peak = live;
      for (const Happening& event : phase.happenings) {
        if (event.born) {
          live += alive[event.tensor] = round_up(event.bytes, Bytes(512));
        } else {
          live -= alive[event.tensor];
        }
        peak = std::max(peak, live);
      }
      if (phase.name == "setup") {
        EXPECT_EQ(live.value(), whole(row, "init"));
        continue;
      }
      const auto step = static_cast<std::size_t>(phase.name.back() - '0');
      const Value& recorded =
          *(*row.find("steps")->as_array())[step].find(phase.name.substr(0, phase.name.size() - 1));
      EXPECT_EQ(live.value(), whole(recorded, "live")) << phase.name;
      EXPECT_EQ(peak.value(), whole(recorded, "peak")) << phase.name;
    }
  }
}

// The same program through the simulated caching allocator.
void expect_counters(const std::vector<RecordedPhase>& phases, const std::string& conf,
                     const Value& recorded) {
  vram::CachingAllocator allocator(settings_from_conf(conf == "default" ? "" : conf));
  std::unordered_map<std::int64_t, vram::BlockId> blocks;
  std::size_t compared = 0;
  for (const RecordedPhase& phase : phases) {
    Bytes allocated = allocator.allocated();
    Bytes reserved = allocator.reserved();
    for (const Happening& event : phase.happenings) {
      if (event.born) {
        blocks[event.tensor] = allocator.allocate(event.bytes);
      } else {
        allocator.free(blocks[event.tensor]);
      }
      allocated = std::max(allocated, allocator.allocated());
      reserved = std::max(reserved, allocator.reserved());
    }
    const Value* counters = recorded.find(phase.name);
    if (counters == nullptr) continue;
    ++compared;
    EXPECT_EQ(allocator.allocated().value(), whole(*counters, "allocated")) << phase.name;
    EXPECT_EQ(allocated.value(), whole(*counters, "allocated_peak")) << phase.name;
    EXPECT_EQ(allocator.reserved().value(), whole(*counters, "reserved")) << phase.name;
    EXPECT_EQ(reserved.value(), whole(*counters, "reserved_peak")) << phase.name;
  }
  EXPECT_EQ(compared, recorded.as_object()->size());
}

TEST(TrainingSteps, AllocatedAndReservedOfEveryPhaseUnderEverySetting) {
  const std::vector<Value>& rows = *allocator_vectors().find("training_steps")->as_array();
  ASSERT_GE(rows.size(), 20u);
  for (const Value& row : rows) {
    const std::vector<RecordedPhase> phases = played(row);
    for (const auto& [conf, recorded] : *row.find("results")->as_object()) {
      SCOPED_TRACE(name_of(row) + ", " + conf);
      expect_counters(phases, conf, recorded);
    }
  }
}

}  // namespace
}  // namespace steelyard::testing
