#include "plan/sample_lengths.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <ranges>
#include <vector>

#include "plan/graphs.h"

namespace steelyard::plan {

namespace {

// Many enough that the longest of them is within a few per cent of the longest of all.
constexpr int kShorterSteps = 50;

// Mean of the density that falls (or rises) as exp(-rate x) on [0, 1].
double mean_of_falling(double rate) {
  constexpr double kFlat = 1e-4;
  if (std::abs(rate) < kFlat) return 0.5 - rate / 12.0;
  return 1.0 / rate - 1.0 / std::expm1(rate);
}

double rate_of_mean(double mean) {
  constexpr double kSteepest = 500.0;
  constexpr int kHalvings = 60;
  double low = -kSteepest;
  double high = kSteepest;
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = (low + high) / 2.0;
    (mean_of_falling(middle) > mean ? low : high) = middle;
  }
  return (low + high) / 2.0;
}

// Where that density has the part u of its weight below it.
double quantile(double rate, double u) {
  constexpr double kFlat = 1e-4;
  if (std::abs(rate) < kFlat) return u;
  return -std::log1p(u * std::expm1(-rate)) / rate;
}

// Of all lengths up to the longest with a given mean the ones that say nothing else (the most
// entropy): their density is an exponential. Multiples of the golden ratio fill it evenly, and as
// chance does they have about ln n records in n. A micro-batch is as long as its longest sample.
std::vector<double> shorter_lengths(const facts::Job& job, double longest) {
  std::vector<double> lengths;
  if (!job.train.sequence_length_mean || job.train.packed) return lengths;
  constexpr double kGoldenRatio = 0.61803398874989485;
  const double rate = rate_of_mean(*job.train.sequence_length_mean / longest);
  const double samples = static_cast<double>(*job.train.micro_batch);
  for (int i = 1; i <= kShorterSteps; ++i) {
    const double turns = kGoldenRatio * i;
    const double u = std::pow(turns - std::floor(turns), 1.0 / samples);
    lengths.push_back(std::clamp(std::round(quantile(rate, u) * longest), 1.0, longest));
  }
  return lengths;
}

// A loop that puts the longest sample first meets no longer one.
bool meets_longer_samples(const facts::FrameworkProfile& framework) {
  const auto word = framework.operators.find("longest_sample");
  return word == framework.operators.end() || word->second != "first";
}

// The programs of samples of a length.
struct Traced {
  double length = 0.0;
  const std::vector<step::RankProgram>* programs = nullptr;
};

bool has_the_slots_of(const std::vector<step::RankProgram>& a,
                      const std::vector<step::RankProgram>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const step::RankProgram& x, const step::RankProgram& y) {
                      return x.program.slots.size() == y.program.slots.size();
                    });
}

std::optional<std::vector<step::RankProgram>> programs_of_length(const Request& request,
                                                                 model::SampleShape sample,
                                                                 const Ranks& ranks,
                                                                 std::int64_t length) {
  sample.sequence = length;
  facts::Job job = ranks.job;
  job.train.sequence_length = length;
  const auto graph = shared_graph(request.model, job, sample, nullptr);
  if (!graph) return std::nullopt;
  auto programs =
      step::programs_of(**graph, job, request.constants.framework, request.machine.gpu, {}, {});
  if (!programs || !has_the_slots_of(*programs, ranks.programs)) return std::nullopt;
  return std::move(*programs);
}

// A tensor's bytes grow with the samples' length as a polynomial of at most the second degree
// (scores of attention): three lengths tell those of all others.
Bytes bytes_at(double length, const std::vector<Traced>& traced, std::size_t rank,
               std::size_t slot) {
  double sum = 0.0;
  for (const Traced& one : traced) {
    double part = static_cast<double>((*one.programs)[rank].program.slots[slot].bytes.value());
    for (const Traced& other : traced) {
      if (&other != &one) part *= (length - other.length) / (one.length - other.length);
    }
    sum += part;
  }
  return Bytes(std::max<std::int64_t>(std::llround(sum), 0));
}

}  // namespace

void add_shorter_steps(const Request& request, const model::SampleShape& longest, Ranks& ranks) {
  if (!request.vram || !meets_longer_samples(request.constants.framework)) return;
  const auto whole = static_cast<double>(longest.sequence);
  const std::vector<double> lengths = shorter_lengths(ranks.job, whole);
  if (lengths.empty()) return;
  // Of short ones a model may make other tensors (the gradient of few rows of an embedding, or of
  // many): they tell nothing.
  std::vector<std::vector<step::RankProgram>> others;
  std::vector<Traced> traced = {{whole, &ranks.programs}};
  others.reserve(2);
  constexpr int kParts = 16;
  for (const int parts : {8, 4, 12, 14, 15}) {
    const std::int64_t length = longest.sequence * parts / kParts;
    if (others.size() == 2 || length < 1) continue;
    auto programs = programs_of_length(request, longest, ranks, length);
    if (!programs) continue;
    others.push_back(std::move(*programs));
    traced.push_back({static_cast<double>(length), &others.back()});
  }
  if (others.empty()) return;
  for (std::size_t rank = 0; rank < ranks.programs.size(); ++rank) {
    step::Program& own = ranks.programs[rank].program;
    // In a pipeline a step has one length, and several micro-batches in flight.
    const std::int64_t most = std::max<std::int64_t>(kShorterSteps / own.in_flight, 1);
    for (const double length : std::views::take(lengths, most)) {
      std::vector<Bytes>& sizes = own.shorter_steps.emplace_back();
      for (std::size_t slot = 0; slot < own.slots.size(); ++slot) {
        sizes.push_back(bytes_at(length, traced, rank, slot));
      }
    }
  }
}

}  // namespace steelyard::plan
