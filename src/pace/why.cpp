#include "pace/why.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "pace/pieces.h"
#include "pace/prices.h"
#include "pace/spans.h"
#include "pace/stretch.h"
#include "pace/walk.h"

namespace steelyard::pace {
namespace {

using facts::PaceBound;
using facts::PaceRow;
using facts::PaceWhy;
using step::Body;
using step::EventKind;
using step::PhaseKind;
using step::Program;
using step::WorkKind;

// Adds up what is alike.
class Table {
 public:
  Table(const Program& program, const Prices& prices) : program_(program), prices_(prices) {}

  void add(const Piece& piece, PhaseKind phase, const Body& body, double times,
           std::int64_t count) {
    PaceRow row;
    row.phase = step::name_of(phase);
    row.layer = body.layer;
    row.operation = operation_of(program_, piece);
    row.bound = bound_of(piece);
    row.count = count;
    row.busy = piece.busy * times;
    row.step = piece.step * times;
    row.recomputed = piece.kind == EventKind::work &&
                     program_.work[static_cast<std::size_t>(piece.index)].recomputed;
    add(std::move(row));
  }
  void add(PaceRow row) {
    if (row.count == 0 && !(row.step > Seconds())) return;
    const auto key = std::tuple(row.phase, row.layer, row.operation, row.bound, row.recomputed);
    const auto known = places_.emplace(key, rows_.size());
    if (known.second) {
      rows_.push_back(std::move(row));
      return;
    }
    PaceRow& sum = rows_[known.first->second];
    sum.count = checked_add(sum.count, row.count);
    sum.busy += row.busy;
    sum.step += row.step;
  }

  [[nodiscard]] std::vector<PaceRow> sorted() && {
    std::stable_sort(rows_.begin(), rows_.end(), [](const PaceRow& a, const PaceRow& b) {
      return std::pair(a.step, a.busy) > std::pair(b.step, b.busy);
    });
    return std::move(rows_);
  }

 private:
  [[nodiscard]] PaceBound bound_of(const Piece& piece) const {
    const auto index = static_cast<std::size_t>(piece.index);
    if (piece.kind == EventKind::communicate) {
      const step::Communication& sent = program_.communication[index];
      return sent.ranks > sent.ranks_per_node ? PaceBound::network : PaceBound::link;
    }
    switch (program_.work[index].kind) {
      case WorkKind::transfer:
      case WorkKind::fetch: return PaceBound::host_link;
      case WorkKind::drive_read:
      case WorkKind::drive_write: return PaceBound::storage;
      case WorkKind::host: return PaceBound::host_memory;
      default: break;
    }
    return prices_.work[index].arithmetic_bound ? PaceBound::arithmetic : PaceBound::memory;
  }

  const Program& program_;
  const Prices& prices_;
  std::vector<PaceRow> rows_;
  std::map<std::tuple<std::string, std::string, std::string, PaceBound, bool>, std::size_t> places_;
};

PaceRow of_the_step(const char* operation, PaceBound bound, Seconds seconds) {
  PaceRow row;
  row.operation = operation;
  row.bound = bound;
  row.busy = row.step = seconds;
  return row;
}

void add_passes(const Program& program, const Prices& prices, Table& table) {
  for (std::size_t i = 0; i < program.step.size(); ++i) {
    const step::Pass& pass = program.step[i];
    const std::int64_t passes = checked_multiply(pass.repeat, program.updates.of(i));
    step::for_each_phase(pass, [&](const step::Phase& phase) {
      const std::int64_t often = checked_multiply(passes, phase.repeat);
      for (const Body& body : phase.bodies) {
        const std::int64_t times = checked_multiply(body.repeat, often);
        for (const Piece& piece : pieces_of(body, phase, program, prices)) {
          table.add(piece, phase.kind, body, static_cast<double>(times), times);
        }
      }
      PaceRow row =
          of_the_step("waiting for launches", PaceBound::launches,
                      waiting_for_launches(phase, program, prices) * static_cast<double>(often));
      row.phase = step::name_of(phase.kind);
      table.add(std::move(row));
    });
  }
}

Seconds sum_of(const std::vector<PaceRow>& rows, auto wanted) {
  Seconds sum;
  for (const PaceRow& row : rows) {
    if (wanted(row)) sum += row.step;
  }
  return sum;
}

constexpr double kWorthSaying = 0.01;  // of the step

std::vector<facts::PaceHelp> helps_of(const std::vector<PaceRow>& rows, Seconds step) {
  const auto bound = [&](PaceBound wanted) {
    return sum_of(rows, [wanted](const PaceRow& row) { return row.bound == wanted; });
  };
  const auto fusible = [](const PaceRow& row) {
    return row.bound == PaceBound::memory && (row.phase == "forward" || row.phase == "backward");
  };
  std::vector<facts::PaceHelp> helps = {
      {"recompute less, as far as memory allows (train.recompute)",
       sum_of(rows, [](const PaceRow& row) { return row.recomputed; })},
      {"fuse kernels that only move bytes (train.compile, train.fused_kernels)",
       sum_of(rows, fusible)},
      {"launch fewer kernels: larger micro-batches, CUDA graphs, train.compile",
       bound(PaceBound::launches)},
      {"keep groups that talk the most inside a node, or a faster network",
       bound(PaceBound::network)},
      {"smaller tensor, context or expert groups, or a faster GPU link", bound(PaceBound::link)},
      {"more micro-batches in a step, or more chunks per stage (parallel.virtual_stages)",
       bound(PaceBound::stages)},
      {"offload less", bound(PaceBound::host_link) + bound(PaceBound::host_memory)},
      {"swap less, overlap it (offload.pipelined), or a faster drive", bound(PaceBound::storage)},
  };
  std::erase_if(helps, [step](const facts::PaceHelp& help) {
    return (help.at_most / step).value() < kWorthSaying;
  });
  std::stable_sort(helps.begin(), helps.end(),
                   [](const auto& a, const auto& b) { return a.at_most > b.at_most; });
  return helps;
}

}  // namespace

Result<PaceWhy> explain(const Request& request) {
  const Program& program = *request.program;
  PaceWhy why;
  STEELYARD_TRY(plan, step_time(request));
  why.pace = std::move(plan);
  if (!why.pace.step) return why;
  const facts::EfficiencyConstants constants = constants_for(request);
  STEELYARD_TRY(used, used_by_step(program));
  Missing missing;
  const Prices prices = price(program, used, request, constants, missing);
  const double stretch =
      stretch_of(constants.step_overhead, constants.rank_spread, gpus_of(request));
  Table table(program, prices);
  add_passes(program, prices, table);
  const Seconds bubble = walk(program, prices).breakdown.bubble;
  table.add(of_the_step("pipeline bubble", PaceBound::stages, bubble));
  why.rows = std::move(table).sorted();
  for (PaceRow& row : why.rows) {
    row.busy = row.busy * stretch;
    row.step = row.step * stretch;
  }
  why.spans = spans_of(program, prices, bubble, stretch);
  why.helps = helps_of(why.rows, *why.pace.step);
  return why;
}

}  // namespace steelyard::pace
