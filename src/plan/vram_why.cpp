// The tensors at the peak of one kind of rank: the ranks are measured to find the fullest, that one
// is replayed again with its tensors followed.
#include <algorithm>
#include <utility>

#include "base/suggest.h"
#include "plan/plan.h"
#include "plan/ranks.h"
#include "vram/vram.h"

namespace steelyard::plan {
namespace {

using Programs = std::vector<step::RankProgram>;

Result<std::size_t> rank_named(const Programs& programs, const std::string& kind) {
  std::vector<std::string> kinds;
  for (const step::RankProgram& rank : programs) {
    if (rank.kind == kind) return kinds.size();
    kinds.push_back(rank.kind);
  }
  const auto near = nearest_name(kind, kinds);
  return fail({.code = ErrorCode::unknown_name,
               .subject = "kind of rank",
               .found = "\"" + kind + "\"",
               .accepted = listed(kinds),
               .hint = near ? "did you mean \"" + *near + "\"?" : std::string()});
}

std::size_t fullest_of(const std::vector<vram::Answer>& answers) {
  const auto fullest = std::max_element(
      answers.begin(), answers.end(), [](const vram::Answer& a, const vram::Answer& b) {
        return a.memory.peak_device_used < b.memory.peak_device_used;
      });
  return static_cast<std::size_t>(fullest - answers.begin());
}

}  // namespace

Result<facts::VramWhy> vram_why(const Request& request, const std::optional<std::string>& kind) {
  STEELYARD_TRY(ranks, ranks_of(request));
  const facts::DeviceMemoryConstants device = device_of(request, ranks.job);
  vram::Request wanted;
  wanted.device = &device;
  wanted.capacity = request.machine.gpu.memory.value;
  wanted.habits = request.constants.framework.allocator;
  wanted.conf = ranks.job.train.allocator;
  std::size_t chosen = 0;
  if (kind) {
    STEELYARD_TRY(named, rank_named(ranks.programs, *kind));
    chosen = named;
  } else if (ranks.programs.size() > 1) {
    chosen = fullest_of(vram::replay_all(wanted, programs_only(ranks.programs)));
  }
  const step::RankProgram& rank = ranks.programs[chosen];
  wanted.program = &rank.program;
  wanted.tensors = true;
  vram::Answer answer = vram::replay(wanted);
  facts::VramWhy why;
  why.job = ranks.job.name;
  why.capacity = request.machine.gpu.memory;
  why.rank = std::move(answer.memory);
  why.rank.kind = rank.kind;
  why.rank.ranks = rank.ranks;
  for (const step::RankProgram& each : ranks.programs) why.kinds.push_back(each.kind);
  why.tensors = std::move(answer.tensors);
  why.workspaces = answer.workspaces;
  return why;
}

}  // namespace steelyard::plan
