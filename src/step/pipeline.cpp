#include "step/pipeline.h"

#include "base/memo.h"
#include "step/split_graph.h"
#include "step/workshop.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <utility>

namespace steelyard::step {

namespace {

using model::Block;
using model::Graph;
using model::OperatorKind;
using model::Segment;

Error impossible(std::string subject, std::string found, std::string accepted) {
  Error error;
  error.code = ErrorCode::impossible_combination;
  error.subject = std::move(subject);
  error.found = std::move(found);
  error.accepted = std::move(accepted);
  return error;
}

// The layers between the first and the last segment, one by one.
struct Layers {
  explicit Layers(const Graph& graph)
      : graph_(graph), end_(graph.segments.size() - static_cast<std::size_t>(graph.tail)) {
    for (std::size_t s = 1; s < end_; ++s) {
      const auto blocks = static_cast<std::int64_t>(graph.segments[s].blocks.size());
      count += graph.segments[s].repeat * blocks;
    }
  }
  struct Cut {  // rounds of a segment; or one layer of it, at that place of a round
    static constexpr std::int64_t kWhole = -1;
    std::size_t segment = 0;
    std::int64_t place = kWhole, rounds = 1;

    friend bool operator==(const Cut&, const Cut&) = default;
  };
  // Layers [begin, end): whole rounds of a segment together, the rest one by one.
  [[nodiscard]] std::vector<Cut> between(std::int64_t begin, std::int64_t end) const;
  [[nodiscard]] Segment segment_of(const Cut& cut) const {
    const Segment& whole = graph_.segments[cut.segment];
    if (cut.place == Cut::kWhole) return {cut.rounds, whole.blocks};
    return {1, {whole.blocks[static_cast<std::size_t>(cut.place)]}};
  }

  std::int64_t count = 0;

 private:
  const Graph& graph_;
  std::size_t end_;  // segments from here on are no layers
};

std::vector<Layers::Cut> Layers::between(std::int64_t begin, std::int64_t end) const {
  std::vector<Cut> result;
  std::int64_t offset = 0;  // of the segment's first layer
  for (std::size_t s = 1; s < end_; ++s) {
    const Segment& segment = graph_.segments[s];
    const auto period = static_cast<std::int64_t>(segment.blocks.size());
    const std::int64_t last = std::min(end, offset + segment.repeat * period);
    std::int64_t at = std::max(begin, offset);
    while (at < last) {
      const std::int64_t place = (at - offset) % period;
      const std::int64_t rounds = place == 0 ? (last - at) / period : 0;
      if (rounds > 0) {
        result.push_back({s, Cut::kWhole, rounds});
        at += rounds * period;
      } else {
        result.push_back({s, place, 1});
        ++at;
      }
    }
    offset += segment.repeat * period;
  }
  return result;
}

// Layers per chunk, by depth in the model. What does not divide goes to the stages in the middle:
// the first also holds the embedding, the last the loss.
Result<std::vector<std::int64_t>> layers_of_chunks(std::int64_t layers,
                                                   const facts::ParallelKeys& parallel,
                                                   const std::vector<std::int64_t>& imported) {
  const std::int64_t stages = parallel.pipeline;
  const std::int64_t virtuals = parallel.virtual_stages;
  const std::int64_t chunks = checked_multiply(stages, virtuals);
  const bool whole = std::accumulate(imported.begin(), imported.end(), std::int64_t{0}) == layers;
  if (std::ssize(imported) == chunks && whole) return imported;
  if (chunks > layers) {
    return fail(impossible("parallel.pipeline",
                           fmt::format("{} x {} virtual stages", stages, virtuals),
                           fmt::format("at most the model's {} layers", layers)));
  }
  std::vector<std::int64_t> counts(static_cast<std::size_t>(chunks), layers / chunks);
  if (parallel.stage_layers.empty()) {
    const std::int64_t rest = layers % chunks;
    const std::int64_t from = (chunks - rest) / 2;
    for (std::int64_t i = from; i < from + rest; ++i) ++counts[static_cast<std::size_t>(i)];
    return counts;
  }
  const std::vector<std::int64_t>& given = parallel.stage_layers;
  const std::int64_t sum = std::accumulate(given.begin(), given.end(), std::int64_t{0});
  if (static_cast<std::int64_t>(given.size()) != stages || sum != layers) {
    return fail(impossible("parallel.stage_layers",
                           fmt::format("{} stages, {} layers", given.size(), sum),
                           fmt::format("{} stages, {} layers", stages, layers)));
  }
  for (std::int64_t i = 0; i < chunks; ++i) {
    const std::int64_t own = given[static_cast<std::size_t>(i % stages)];
    counts[static_cast<std::size_t>(i)] = own / virtuals + (i / stages < own % virtuals ? 1 : 0);
  }
  return counts;
}

// Makes what the embedding's block would share with all layers: rotary tables.
std::optional<Segment> shared_tensors(const Graph& graph) {
  Block tables;
  tables.name = "shared tensors";
  for (const Block& block : graph.segments.front().blocks) {
    for (const model::Operator& op : block.operators) {
      if (op.kind == OperatorKind::rotary_table) tables.operators.push_back(op);
    }
  }
  if (tables.operators.empty()) return std::nullopt;
  return Segment{1, {std::move(tables)}};
}

// A weight shared with the embedding is a copy of its own on another stage, one for all of the
// stage that share it. `from`: the stage's segments behind the layers.
void untie(std::vector<Segment>& segments, std::size_t from) {
  std::set<std::string, std::less<>> own;
  std::map<std::string, std::string, std::less<>> copies;  // of what is on another stage
  for (std::size_t s = from; s < segments.size(); ++s) {
    for (Block& block : segments[s].blocks) {
      for (model::Weight& weight : block.weights) {
        if (weight.tied_to.empty()) {
          own.insert(weight.name);
        } else if (!own.contains(weight.tied_to)) {
          const auto [copy, is_new] = copies.try_emplace(weight.tied_to, weight.name);
          weight.tied_to = is_new ? std::string() : copy->second;
        }
      }
    }
  }
}

}  // namespace

namespace {

using Cuts = std::vector<std::vector<Layers::Cut>>;  // by chunk of a stage

void find_alike(const std::vector<Cuts>& cuts, std::vector<Stage>& stages) {
  for (std::size_t i = 0; i < stages.size(); ++i) {
    stages[i].like = i;
    const bool end = i == 0 || i + 1 == stages.size();
    for (std::size_t k = 1; k < i && !end && stages[i].like == i; ++k) {
      if (cuts[k] == cuts[i]) stages[i].like = k;
    }
  }
}

}  // namespace

Result<void> check_stages(const Graph& graph, const facts::Job& job) {
  const facts::ParallelKeys& parallel = job.parallel;
  if (parallel.pipeline == 1 && parallel.virtual_stages == 1 && parallel.stage_layers.empty()) {
    return {};
  }
  STEELYARD_CHECK(
      layers_of_chunks(Layers(graph).count, parallel,
                       job.megatron ? job.megatron->chunk_layers : std::vector<std::int64_t>()));
  return {};
}

Result<std::vector<Stage>> stages_of(const Graph& graph, const facts::ParallelKeys& parallel,
                                     const std::vector<std::int64_t>& chunks, bool once) {
  const std::int64_t stages = parallel.pipeline;
  std::vector<Stage> result(static_cast<std::size_t>(stages));
  if (stages == 1 && parallel.virtual_stages == 1 && parallel.stage_layers.empty()) {
    result[0] = {0, graph, {0}, true};
    return result;
  }
  const Layers layers(graph);
  STEELYARD_TRY(counts, layers_of_chunks(layers.count, parallel, chunks));
  std::vector<Cuts> cuts(result.size());
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < counts.size(); begin += counts[i++]) {
    cuts[i % result.size()].push_back(layers.between(begin, begin + counts[i]));
  }
  find_alike(cuts, result);
  const model::Graph rest = without_segments(graph);
  const std::optional<Segment> tables = shared_tensors(graph);
  for (std::size_t s = 0; s < result.size(); ++s) {
    Stage& stage = result[s];
    stage.index = static_cast<std::int64_t>(s);
    stage.has_loss = s + 1 == result.size();
    if (once && stage.like != s) continue;
    stage.graph = rest;
    std::vector<Segment>& own = stage.graph.segments;
    for (std::size_t c = 0; c < cuts[s].size(); ++c) {
      stage.chunk_begins.push_back(own.size());
      if (s == 0 && c == 0) {
        own.push_back(graph.segments.front());
      } else if (tables) {
        own.push_back(*tables);
      }
      for (const Layers::Cut& cut : cuts[s][c]) own.push_back(layers.segment_of(cut));
    }
    if (!stage.has_loss) continue;
    const std::size_t from = own.size();
    own.insert(own.end(), graph.segments.end() - graph.tail, graph.segments.end());
    if (stage.index > 0) untie(own, from);
  }
  return result;
}

namespace {

std::vector<Turn> one_chunk(facts::Schedule schedule, std::int64_t stage, std::int64_t stages,
                            std::int64_t micro_batches) {
  const bool all_first = schedule == facts::Schedule::gpipe;
  const std::int64_t ahead =
      all_first ? micro_batches : std::min(stages - stage - 1, micro_batches);
  std::vector<Turn> turns;
  turns.reserve(static_cast<std::size_t>(2 * micro_batches));
  std::int64_t forward = 0;
  std::int64_t backward = 0;
  for (; forward < ahead; ++forward) turns.push_back({PhaseKind::forward, 0, false});
  for (; forward < micro_batches; ++forward, ++backward) {
    turns.push_back({PhaseKind::forward, 0, false});
    turns.push_back({PhaseKind::backward, 0, backward + 1 == micro_batches});
  }
  for (; backward < micro_batches; ++backward) {
    turns.push_back({PhaseKind::backward, 0, backward + 1 == micro_batches});
  }
  return turns;
}

// Megatron-LM's get_schedule_table: micro-batches in groups of `stages`, every chunk over a group
// before the next group.
std::vector<std::int32_t> order_of_chunks(std::int64_t group, std::int64_t chunks,
                                          std::int64_t micro_batches) {
  std::vector<std::int32_t> order;
  for (std::int64_t begin = 0; begin < micro_batches; begin += group) {
    const std::int64_t count = std::min(group, micro_batches - begin);
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
      order.insert(order.end(), static_cast<std::size_t>(count), static_cast<std::int32_t>(chunk));
    }
  }
  return order;
}

std::vector<Turn> interleaved(std::int64_t stage, std::int64_t stages, std::int64_t chunks,
                              std::int64_t micro_batches, std::int64_t group) {
  const std::vector<std::int32_t> order = order_of_chunks(group, chunks, micro_batches);
  const std::size_t total = order.size();
  const std::int64_t wanted = (stages - stage - 1) * 2 + (chunks - 1) * group;
  const std::size_t ahead = std::min(static_cast<std::size_t>(wanted), total);
  std::vector<std::int64_t> done(static_cast<std::size_t>(chunks), 0);
  std::vector<Turn> turns;
  turns.reserve(2 * total);
  const auto backward = [&](std::size_t at) {
    const auto chunk = static_cast<std::int32_t>(chunks) - 1 - order[at];
    const std::int64_t passed = ++done[static_cast<std::size_t>(chunk)];
    turns.push_back({PhaseKind::backward, chunk, passed == micro_batches});
  };
  for (std::size_t at = 0; at < ahead; ++at)
    turns.push_back({PhaseKind::forward, order[at], false});
  for (std::size_t at = ahead; at < total; ++at) {
    turns.push_back({PhaseKind::forward, order[at], false});
    backward(at - ahead);
  }
  for (std::size_t at = total - ahead; at < total; ++at) backward(at);
  return turns;
}

}  // namespace

std::vector<Turn> turns_of(facts::Schedule schedule, std::int64_t stage, std::int64_t stages,
                           std::int64_t chunks, std::int64_t micro_batches, std::int64_t group) {
  std::vector<Turn> turns =
      chunks > 1 ? interleaved(stage, stages, chunks, micro_batches, group > 0 ? group : stages)
                 : one_chunk(schedule, stage, stages, micro_batches);
  std::vector<bool> forward(static_cast<std::size_t>(chunks), false);  // begun, by chunk
  std::vector<bool> backward = forward;
  for (Turn& turn : turns) {
    auto begun = (turn.kind == PhaseKind::forward ? forward : backward).begin() + turn.chunk;
    turn.first = !*begun;
    *begun = true;
  }
  return turns;
}

bool fills_groups(const facts::ParallelKeys& parallel, std::int64_t micro_batches,
                  std::int64_t group) {
  if (parallel.virtual_stages <= 1 || parallel.pipeline <= 1) return true;
  if (group <= 0) group = parallel.pipeline;
  const std::int64_t rest = micro_batches % group;
  return micro_batches >= group && (rest == 0 || rest >= parallel.pipeline);
}

std::int64_t in_flight(const std::vector<Turn>& turns) {
  std::vector<std::int64_t> now;
  std::int64_t most = 1;
  for (const Turn& turn : turns) {
    const auto chunk = static_cast<std::size_t>(turn.chunk);
    if (now.size() <= chunk) now.resize(chunk + 1);
    now[chunk] += turn.kind == PhaseKind::forward ? 1 : -1;
    most = std::max(most, now[chunk]);
  }
  return most;
}

Bytes most_waiting(const std::vector<Turn>& turns, const std::vector<Bytes>& of_chunk) {
  Bytes now, most;
  for (const Turn& turn : turns) {
    const Bytes bytes = of_chunk[static_cast<std::size_t>(turn.chunk)];
    now = turn.kind == PhaseKind::forward ? now + bytes : now - bytes;
    most = std::max(most, now);
  }
  return most;
}

std::vector<TurnRun> runs_of(const std::vector<Turn>& turns, std::size_t period) {
  const auto repeats = [&](std::size_t first, std::size_t count) {
    std::int64_t times = 1;
    std::size_t next = first + count;
    while (next + count <= turns.size() &&
           std::equal(turns.begin() + static_cast<std::ptrdiff_t>(first),
                      turns.begin() + static_cast<std::ptrdiff_t>(first + count),
                      turns.begin() + static_cast<std::ptrdiff_t>(next))) {
      ++times;
      next += count;
    }
    return times;
  };
  std::vector<TurnRun> runs;
  for (std::size_t at = 0; at < turns.size();) {
    TurnRun best{at, 1, repeats(at, 1)};
    for (const std::size_t count : {std::size_t{2}, period}) {
      if (at + count > turns.size()) continue;
      const std::int64_t times = repeats(at, count);
      const auto covered = [](const TurnRun& run) {
        return run.repeat == 1 ? 1 : static_cast<std::int64_t>(run.count) * run.repeat;
      };
      const TurnRun run{at, count, times};
      if (covered(run) > covered(best)) best = run;
    }
    runs.push_back(best);
    at += best.count * static_cast<std::size_t>(best.repeat);
  }
  return runs;
}

TurnBook turn_book(facts::Schedule schedule, std::int64_t stage, std::int64_t stages,
                   std::int64_t chunks, std::int64_t micro_batches, std::int64_t group) {
  const std::vector<Turn> turns = turns_of(schedule, stage, stages, chunks, micro_batches, group);
  TurnBook book;
  book.in_flight = in_flight(turns);
  const std::int64_t round = group > 0 && chunks > 1 ? group : stages;
  for (const TurnRun& run : runs_of(turns, static_cast<std::size_t>(2 * round * chunks))) {
    TurnPass pass{.repeat = run.repeat, .turns = {}, .order = {}};
    for (std::size_t i = run.first; i < run.first + run.count; ++i) {
      const auto known = std::find(pass.turns.begin(), pass.turns.end(), turns[i]);
      pass.order.push_back(static_cast<std::int32_t>(known - pass.turns.begin()));
      if (known == pass.turns.end()) pass.turns.push_back(turns[i]);
    }
    if (pass.turns.size() == run.count) pass.order.clear();
    book.passes.push_back(std::move(pass));
  }
  return book;
}

namespace {

struct Book {
  std::once_flag once;
  TurnBook book;
};
using Books = Memo<std::array<std::int64_t, 6>, Book>;

}  // namespace

const TurnBook& turn_book(Workshop& workshop, facts::Schedule schedule, std::int64_t stage,
                          std::int64_t stages, std::int64_t chunks, std::int64_t micro_batches,
                          std::int64_t group) {
  Book& known = workshop.shelf<Books>().at(
      {static_cast<std::int64_t>(schedule), stage, stages, chunks, micro_batches, group});
  std::call_once(known.once, [&] {
    known.book = turn_book(schedule, stage, stages, chunks, micro_batches, group);
  });
  return known.book;
}

}  // namespace steelyard::step
