// The job of one model among several, as programs_of reads it.
#pragma once

#include "facts/job.h"

namespace steelyard::step {

[[nodiscard]] bool shards_parameters(facts::Sharding sharding);

// Of a model that is only asked; `as_policy`: its weights are held as the job's method says;
// `waits`: in host memory between its turns.
[[nodiscard]] facts::Job asked_job(const facts::Job& job, bool as_policy, bool waits);
// Of the policy while it writes.
[[nodiscard]] facts::Job generation_job(const facts::Job& job);
[[nodiscard]] facts::Job critic_job(const facts::Job& job);

}  // namespace steelyard::step
