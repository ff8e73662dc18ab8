#include "plan/host_step.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>

#include "base/format.h"

namespace steelyard::plan {
namespace {

double ranks_of(const facts::Job& job, const facts::Machine& machine) {
  return static_cast<double>(std::max<std::int64_t>(job.machine.gpus.value_or(machine.gpus), 1));
}

// Another engine's step is its own, with threads of its own: DeepSpeed's over Megatron's model.
bool leaves_one_thread(const Request& request, const facts::Job& job, double ranks) {
  if (ranks < 2.0 || (job.megatron && !job.megatron->gradient_buffer)) return false;
  const auto& words = request.constants.framework.operators;
  const auto word = words.find("host_step");
  return word != words.end() && word->second == "one_thread";
}

// What the job says, one where the launcher leaves each of several ranks one, else the cores;
// nothing: as many as there are, however many.
std::optional<double> threads_of(const Request& request, const facts::Job& job,
                                 const facts::Machine& machine) {
  const double ranks = ranks_of(job, machine);
  if (job.offload.host_threads) return static_cast<double>(*job.offload.host_threads);
  if (leaves_one_thread(request, job, ranks)) return 1.0;
  if (!machine.host.cores) return std::nullopt;
  return std::max(1.0, static_cast<double>(*machine.host.cores) / ranks);
}

// A copy reads and writes.
BytesPerSecond thread_rate(const Request& request, const facts::Machine& machine) {
  const auto& measured = machine.host.thread_copy;
  return (measured ? *measured : request.constants.host.thread_copy) * 2.0;
}

bool steps_on_the_host(const step::Program& program) {
  return std::ranges::any_of(program.work, [](const step::Work& work) {
    return work.kind == step::WorkKind::host && !(work.flops > Flops());
  });
}

}  // namespace

BytesPerSecond host_stepping(const Request& request, const facts::Job& job,
                             const facts::Machine& machine) {
  const std::optional<double> threads = threads_of(request, job, machine);
  if (!threads) return {};
  return thread_rate(request, machine) * (ranks_of(job, machine) * *threads);
}

void tell_host_step(const Request& request, const step::Program& program, facts::Plan& plan) {
  if (!steps_on_the_host(program)) return;
  const facts::Machine& machine = plan.machine;
  const std::optional<double> threads = threads_of(request, plan.job, machine);
  if (!threads) return;
  const bool stated = plan.job.offload.host_threads.has_value();
  const bool left = !stated && leaves_one_thread(request, plan.job, ranks_of(plan.job, machine));
  const char* why =
      left ? ", which the launcher leaves each of several (offload.host_threads)" : "";
  plan.pace.assumptions.push_back(
      fmt::format("The host's step: {:.0f} thread{} a rank{}, {} of memory each at most.", *threads,
                  *threads < 1.5 ? "" : "s", why, to_text(thread_rate(request, machine))));
}

}  // namespace steelyard::plan
