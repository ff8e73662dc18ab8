// One program of all models of a job, as one rank has them: the policy's, with those that are
// asked, that judge and that write put around it (alignment.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "facts/constants.h"
#include "facts/job.h"
#include "model/graph.h"
#include "step/alignment.h"
#include "step/merge.h"
#include "step/program.h"
#include "step/step.h"

namespace steelyard::step {

// The programs of the models beside the policy, made once for all stages of a pipeline.
class RolePrograms {
 public:
  RolePrograms(const facts::Job& job, const facts::FrameworkProfile& profile,
               const facts::Gpu& gpu);

  // The graph's address stands for it: it lives as long as this, and has one job and one use.
  [[nodiscard]] Result<const std::vector<RankProgram>*> of(const model::Graph& graph,
                                                           const facts::Job& job,
                                                           const ModelUse& use);
  [[nodiscard]] const facts::Job& job() const { return job_; }
  [[nodiscard]] const facts::FrameworkProfile& profile() const { return profile_; }

 private:
  struct Known {
    const model::Graph* graph = nullptr;
    std::vector<RankProgram> programs;
  };

  const facts::Job& job_;
  const facts::FrameworkProfile& profile_;
  facts::FrameworkProfile forward_only_;  // a schedule without backward passes keeps nothing
  const facts::Gpu& gpu_;
  std::vector<Known> known_;
};

class Composer {
 public:
  Composer(RolePrograms& roles, std::size_t stage, Program policy)
      : roles_(roles),
        job_(roles.job()),
        profile_(roles.profile()),
        stage_(stage),
        program_(std::move(policy)) {
    chunks_ = chunks_of(program_);
  }

  Result<Program> compose(const Alignment& alignment);

 private:
  struct Asking {  // of one model
    std::vector<Phase> before, at, after;
  };

  Result<Program> built(const model::Graph& graph, const facts::Job& job, const ModelUse& use);
  Joined join(const Program& other, const std::string& label);
  Result<Asking> ask(const AskedModel& model);
  Asking move_in(const Joined& joined, const Program& other, std::vector<Phase> phases);
  [[nodiscard]] bool asks_ahead() const;
  void ask_ahead(std::vector<Asking> askings, std::int64_t times, std::vector<Pass>& passes) const;
  void ask_in_micro_batches(const std::vector<Asking>& askings);
  Result<void> add_critic(const model::Graph& graph, bool joint);
  Result<void> generate(const Generation& generation, std::vector<Pass>& passes);
  Result<model::Graph> held_by_rank(const model::Graph& graph) const;
  void gather_all(const Joined& joined, const Program& whole, Phase& first, Phase& last);
  void grow_caches(const model::Graph& graph, std::int64_t tokens, Phase& phase);
  void drop_caches(Phase& phase);
  void keep_scores(std::int64_t numbers, Phase& last);
  void hold_engine(const Generation& generation, std::vector<Pass>& passes);
  void hold_rollout(Bytes bytes);
  std::int32_t slot(Bytes bytes, facts::VramCategory category, const std::string& text);
  void add_work(std::vector<Event>& events, WorkKind kind, Bytes traffic, const std::string& text);
  void add_states(const StateSizes& states, bool trains, Bytes waiting);
  void count_kernels();

  RolePrograms& roles_;
  const facts::Job& job_;
  const facts::FrameworkProfile& profile_;
  std::size_t stage_;
  Program program_;
  std::int32_t chunks_ = 0;
  std::vector<Body> caches_;  // what is held of the past, as it was allocated last
};

}  // namespace steelyard::step
