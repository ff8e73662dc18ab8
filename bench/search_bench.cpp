// What one layout of a large model costs: its bounds, its pace and RAM, its whole plan.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include "catalog/catalog.h"
#include "plan/figures.h"
#include "plan/floor.h"
#include "search/search.h"
#include "search/space.h"
#include "step/workshop.h"

namespace {

using namespace steelyard;

template <class T>
T value_of(Result<T> result) {
  if (result) return std::move(*result);
  std::cerr << result.error().subject << ": " << result.error().found << "\n";
  std::exit(1);
}

// Nothing in host memory, the loader as it is: so that few layouts are refused.
facts::Job with_host_keys_given(facts::Job job) {
  for (const char* key : {"offload.parameters", "offload.gradients", "offload.optimizer",
                          "offload.activations", "data.workers"}) {
    job.origins[key].origin = facts::Origin::job;
  }
  return job;
}

// A 175B model on 64 nodes; its layouts without what lies in host memory.
struct Question {
  plan::Request request;
  search::Space space;

  static facts::Job job() {
    facts::Job job;
    job.model.config = facts::Value(facts::Object{{"model_type", "gpt2"},
                                                  {"n_embd", 12288},
                                                  {"n_layer", 96},
                                                  {"n_head", 96},
                                                  {"n_positions", 2048},
                                                  {"vocab_size", 51200}});
    job.framework = "megatron";
    job.train.sequence_length = 2048;
    job.train.global_batch = 1536;
    job.data.kind = facts::DataKind::tokens;
    job.machine.name = "dgx-h100";
    job.machine.nodes = 64;
    return job;
  }
  static plan::Request read() {
    const catalog::Catalog known = value_of(catalog::Catalog::open({}));
    plan::Request request;
    request.job = job();
    request.model = value_of(known.model_of(request.job, {}));
    request.machine = value_of(known.machine_of(request.job, {}));
    request.constants = value_of(known.constants(request.job.framework));
    request.advice = false;
    return request;
  }
  Question()
      : request(read()),
        space(with_host_keys_given(job()), 512, 8, 1536,
              {.shardings = {facts::Sharding::none, facts::Sharding::zero1}}) {}
};

Question& question() {
  static Question asked;
  return asked;
}

// The next legal layout from `number` on.
facts::Job next(std::int64_t& number) {
  const search::Space& space = question().space;
  facts::Job job = space.job();
  constexpr std::int64_t kStride = 7919;  // all over the space
  do {
    number = (number + kStride) % space.size();
  } while (!space.apply(number, job));
  return job;
}

void bound(benchmark::State& state) {
  static plan::Floors floors(question().request);
  std::int64_t number = 0;
  for (auto _ : state) benchmark::DoNotOptimize(floors.of(next(number)));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(bound)->Iterations(20000);

// `shared`: what layouts have in common is made once, as in a search.
void planned(benchmark::State& state, bool vram, bool shared) {
  plan::Request request = question().request;
  request.vram = vram;
  if (shared) {
    static const auto workshop = std::make_shared<step::Workshop>();
    request.workshop = workshop;
  }
  std::int64_t number = 0;
  for (auto _ : state) {
    request.job = next(number);
    benchmark::DoNotOptimize(plan::figures(request, {.comparable_only = shared}));
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK_CAPTURE(planned, pace_and_ram_alone, false, false)->Iterations(300);
BENCHMARK_CAPTURE(planned, pace_and_ram, false, true)->Iterations(2000);
BENCHMARK_CAPTURE(planned, in_full, true, true)->Iterations(50);

search::Bounds bounds_of(const std::shared_ptr<plan::Floors>& floors) {
  return [floors](const facts::Job& layout,
                  const search::Bound* alike) -> std::optional<search::Bound> {
    plan::Floor same;
    if (alike != nullptr) same = {alike->step, alike->ram, alike->vram, true, false};
    const auto floor = floors->of(layout, alike != nullptr ? &same : nullptr);
    if (!floor || !(floor->any || floor->refused)) return std::nullopt;
    return search::Bound{floor->step, floor->ram, floor->vram, floor->refused};
  };
}

// All layouts, the replays of those that could win included; items: legal layouts. With bounds also
// what lies in host memory and the loader's workers are free, as in `steelyard search`: another
// space.
void searched(benchmark::State& state, bool bounded) {
  for (auto _ : state) {
    const auto workshop = std::make_shared<step::Workshop>();
    plan::Request request = question().request;
    request.workshop = workshop;
    const auto floors = std::make_shared<plan::Floors>(request);
    const search::Planner planner = [&request](const facts::Job& layout, search::Depth depth) {
      thread_local plan::Request own = request;  // as the program keeps requests
      own.workshop = request.workshop;
      own.job = layout;
      own.vram = depth != search::Depth::without_vram;
      return plan::figures(own, {.only_if_fits = depth == search::Depth::only_if_fits,
                                 .comparable_only = depth == search::Depth::without_vram});
    };
    const facts::Plan planned = value_of(planner(request.job, search::Depth::full));
    search::Counts counts;
    const facts::Job job = bounded ? request.job : with_host_keys_given(request.job);
    search::SearchQuestion asked{
        .job = &job,
        .planned = &planned,
        .places = {{"dgx-h100", request.machine, request.job.machine.nodes}},
        .shardings = {facts::Sharding::none, facts::Sharding::zero1},
        .counts = &counts};
    if (bounded) {
      asked.bounds = [floors](const facts::Job&) { return bounds_of(floors); };
      asked.siblings = [&request](const std::vector<facts::Job>& layouts) {
        plan::Request own = request;
        return plan::compared(own, layouts);
      };
    }
    benchmark::DoNotOptimize(search::search(asked, planner));
    state.counters["planned"] = static_cast<double>(counts.planned);
    state.counters["ruled_out"] = static_cast<double>(counts.ruled_out);
    state.counters["refused"] = static_cast<double>(counts.refused);
    state.SetItemsProcessed(counts.planned + counts.ruled_out);
  }
}
BENCHMARK_CAPTURE(searched, with_bounds, true)->Iterations(1)->MeasureProcessCPUTime();
BENCHMARK_CAPTURE(searched, all_planned, false)->Iterations(1)->MeasureProcessCPUTime();

}  // namespace

BENCHMARK_MAIN();
