// Whole training steps of the libraries' own models (transformers, timm, torchvision, diffusers,
// PEFT), as validation/record_vram.py recorded them over fake CUDA tensors, against the programs of
// the same jobs: live bytes and their peaks.
//
// Fake tensors run no kernels and sum gradients into new tensors; everything else is a job's own
// program. Left out are runs whose peak is such a sum (a tied embedding's gradient), and
// Adafactor, whose temporaries are planned too high. STEELYARD_RECORDED names another file.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "codec/codec.h"
#include "plan/planning.h"
#include "plan/resolve.h"
#include "vectors/recorded_step.h"

namespace steelyard::plan {
namespace {

using facts::Value;
using testing::text;
using testing::whole;

const Value& recorded() {
  static const Value file = [] {
    const char* other = std::getenv("STEELYARD_RECORDED");
    const std::filesystem::path own =
        std::filesystem::path(STEELYARD_TESTS_DIR) / "plan" / "recorded" / "library_steps.json";
    return value_of(codec::read_value(other == nullptr ? own : std::filesystem::path(other)));
  }();
  return file;
}

step::Program program_of(const Value& run) {
  const Request request = request_for(value_of(codec::job_from(*run.find("job"), "job", {})));
  const facts::FrameworkProfile& profile = request.constants.framework;
  const facts::Job job = value_of(resolve(request.job, request.model, request.machine, profile));
  const model::Graph graph =
      value_of(model::build(request.model, sample_shape(job, *job.train.micro_batch)));
  const step::AdapterHabits habits = value_of(step::adapter_habits_of(profile));
  const step::Layout layout = value_of(step::layout_of(job, habits));
  step::Variants variants = value_of(step::variants_of(profile, job.train, job.parallel));
  variants.fake_tensors = true;
  const step::Stage stage{0, value_of(step::with_method(graph, job, habits)), {0}, true};
  return step::Assembler(stage, job, profile, variants, layout, habits).assemble();
}

struct Counted {
  Bytes live, peak;
  std::string peak_at;
};

// By "forward0" and so on; the phases of several micro-batches have one name: all of them.
std::vector<std::pair<std::string, Counted>> counted(const step::Program& program, int steps) {
  std::vector<std::pair<std::string, Counted>> phases;
  std::unordered_map<std::int64_t, Bytes> alive;
  Bytes live;
  const testing::WrittenOut written(program, steps);
  for (const testing::RecordedPhase& phase : written.phases()) {
    Counted figures{live, live, "start"};
    for (const testing::Happening& event : phase.happenings) {
      if (event.born) {
        live += alive[event.tensor] = round_up(event.bytes, Bytes(512));
      } else {
        live -= alive[event.tensor];
      }
      if (live > figures.peak) figures.peak_at = event.name;
      figures.peak = std::max(figures.peak, live);
    }
    figures.live = live;
    phases.emplace_back(phase.name, figures);
  }
  return phases;
}

class RecordedRun : public ::testing::TestWithParam<std::size_t> {};

const Value& run_of(std::size_t number) {
  return (*recorded().find("runs")->as_array())[number];
}

std::vector<std::size_t> numbers() {
  std::vector<std::size_t> all(recorded().find("runs")->as_array()->size());
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
  return all;
}

std::vector<std::pair<std::string, Counted>> counted_there(const Value& run) {
  std::vector<std::pair<std::string, Counted>> phases;
  for (const Value& row : *run.find("phases")->as_array()) {
    const std::vector<Value>& cells = *row.as_array();  // step, phase, live, peak, peak at
    const std::int64_t step = *cells[0].as_whole();
    phases.emplace_back(
        *cells[1].as_text() + (step < 0 ? "" : std::to_string(step)),
        Counted{Bytes(*cells[2].as_whole()), Bytes(*cells[3].as_whole()), *cells[4].as_text()});
  }
  return phases;
}

// Small tensors that are not modelled: positions, indices of gathered keys, the loss beside its
// scaled copy; and in the setup rotary frequencies, of the model or of each layer, and what PEFT
// leaves behind.
constexpr std::int64_t kSmall = 2048;
// BERT's position and token type ids: int64, as many as positions, in the setup.
constexpr std::int64_t kIds = 8192;
// Of a peak: when a convolution's weight gradient is cast, and a kept statistic here and there.
constexpr std::int64_t kShare = 150;

// GPT2Attention registers a causal mask of n_positions squared and a scalar in each layer.
std::int64_t masks_of(const Value& run) {
  const Value& config = *run.find("job")->find("model")->find("config");
  const Value* type = config.find("model_type");
  if (type == nullptr || *type->as_text() != "gpt2") return 0;
  const std::int64_t positions = whole(config, "n_positions");
  return whole(config, "n_layer") * (positions * positions + 512);
}

// Not compared: what the forward pass leaves (it is seen at the peak of the backward pass), and
// what lives between the micro-batches of a step, where the loop still holds the last outputs.
TEST_P(RecordedRun, PeaksOfBackwardAndOptimizerAndWhatStays) {
  const Value& run = run_of(GetParam());
  SCOPED_TRACE(text(run, "id"));
  const auto ours = counted(program_of(run), 2);
  const auto theirs = counted_there(run);
  ASSERT_EQ(ours.size(), theirs.size());
  const Bytes beside = theirs[0].second.live - ours[0].second.live;
  EXPECT_GE(beside.value(), masks_of(run));
  EXPECT_LE(beside.value(), masks_of(run) + kSmall + kIds);
  for (std::size_t i = 1; i < ours.size(); ++i) {
    const auto& [name, mine] = ours[i];
    ASSERT_EQ(name, theirs[i].first);
    if (name.starts_with("forward")) continue;
    const Counted& other = theirs[i].second;
    EXPECT_LE(std::abs((other.peak - mine.peak - beside).value()),
              kSmall + other.peak.value() / kShare)
        << name << ": ours " << mine.peak.value() << " at " << mine.peak_at << ", theirs "
        << other.peak.value() << " at " << other.peak_at;
    if (name.starts_with("backward")) continue;
    EXPECT_LE(std::abs((other.live - mine.live - beside).value()), kSmall) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Libraries, RecordedRun, ::testing::ValuesIn(numbers()),
                         [](const auto& number) {
                           std::string name = text(run_of(number.param), "id");
                           for (char& letter : name) {
                             if (std::isalnum(static_cast<unsigned char>(letter)) == 0) {
                               letter = '_';
                             }
                           }
                           return name;
                         });

}  // namespace
}  // namespace steelyard::plan
