#include "cli/what_if.h"

#include <memory>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include "facts/host.h"
#include "plan/figures.h"
#include "plan/floor.h"
#include "step/workshop.h"

namespace steelyard::cli {
namespace {

Result<facts::Plan> planned(plan::Request& request, search::Depth depth) {
  request.advice = depth == search::Depth::advised;
  if (request.advice) {
    request.alternatives = {};
    request.vram = true;
    return plan::plan(request);
  }
  // What ranks without a card hold lies in host memory, which every depth asks for.
  request.vram =
      depth != search::Depth::without_vram || facts::computes_on_host(request.machine.gpu);
  return plan::figures(request, {.only_if_fits = depth == search::Depth::only_if_fits,
                                 .until_short = depth == search::Depth::until_short,
                                 .comparable_only = depth == search::Depth::without_vram});
}

auto all_of(const facts::MachineKeys& keys) {
  return std::tie(keys.name, keys.nodes, keys.gpus, keys.fabric_gpus, keys.gpu, keys.ram_gib,
                  keys.vram_gib, keys.cores, keys.storage_gb_per_s, keys.storage_write_gb_per_s,
                  keys.storage_total_gb_per_s, keys.network_gbps_per_gpu, keys.numa_binding,
                  keys.numa_memory);
}

// Requests of machines that were looked up, each for one plan at a time.
class Requests {
 public:
  explicit Requests(const Base& base) : base_(base) {}

  Result<std::unique_ptr<plan::Request>> borrow(const facts::Job& job) {
    {
      const std::scoped_lock lock(mutex_);
      for (std::unique_ptr<plan::Request>& spare : spares_) {
        // What is imported is read into each job anew.
        if (job.import.megatron || all_of(spare->job.machine) != all_of(job.machine)) continue;
        std::unique_ptr<plan::Request> found = std::move(spare);
        spare = std::move(spares_.back());
        spares_.pop_back();
        found->job = job;
        return found;
      }
    }
    STEELYARD_TRY(request, request_of({job, base_.read.folder}, base_.catalog));
    request.workshop = base_.workshop;
    return std::make_unique<plan::Request>(std::move(request));
  }
  void give_back(std::unique_ptr<plan::Request> request) {
    const std::scoped_lock lock(mutex_);
    spares_.push_back(std::move(request));
  }

 private:
  const Base& base_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<plan::Request>> spares_;
};

}  // namespace

Result<Base> base_of(const Session& session, const JobWords& words) {
  STEELYARD_TRY(read, read_job(words));
  STEELYARD_TRY(catalog, open_catalog(session));
  Result<plan::Request> request = request_of(read, catalog);
  if (!request) return fail(placed(request.error(), read));
  request->advice = false;
  Result<facts::Plan> planned = plan::plan(*request);
  if (!planned) return fail(placed(planned.error(), read));
  return Base{std::move(read), std::move(catalog), std::move(*request), std::move(*planned),
              std::make_shared<step::Workshop>()};
}

search::Planner planner_of(const Base& base) {
  return [&base](const facts::Job& job, search::Depth depth) -> Result<facts::Plan> {
    STEELYARD_TRY(request, request_of({job, base.read.folder}, base.catalog));
    request.workshop = base.workshop;
    return planned(request, depth);
  };
}

LayoutPlanner layout_planner_of(const Base& base) {
  const auto requests = std::make_shared<Requests>(base);
  const auto one = [requests](const facts::Job& job, search::Depth depth) -> Result<facts::Plan> {
    STEELYARD_TRY(request, requests->borrow(job));
    Result<facts::Plan> plan = planned(*request, depth);
    requests->give_back(std::move(request));
    return plan;
  };
  const auto siblings = [requests, one](const std::vector<facts::Job>& jobs) {
    std::vector<Result<facts::Plan>> plans;
    Result<std::unique_ptr<plan::Request>> request = requests->borrow(jobs.front());
    const bool alone = !request || (*request)->job.import.megatron ||
                       facts::computes_on_host((*request)->machine.gpu);
    if (alone) {
      for (const facts::Job& job : jobs) plans.push_back(one(job, search::Depth::without_vram));
    } else {
      plans = plan::compared(**request, jobs);
    }
    if (request) requests->give_back(std::move(*request));
    return plans;
  };
  return {one, siblings};
}

std::function<search::Bounds(const facts::Job& place)> bounds_of(const Base& base) {
  struct Known {
    facts::MachineKeys machine;
    std::shared_ptr<plan::Floors> floors;
  };
  const auto known = std::make_shared<std::vector<Known>>();
  return [known, &base](const facts::Job& place) -> search::Bounds {
    facts::MachineKeys machine = place.machine;
    machine.nodes = 1;  // floors are of any number of them
    std::shared_ptr<plan::Floors> floors;
    for (const Known& one : *known) {
      if (all_of(one.machine) == all_of(machine)) floors = one.floors;
    }
    if (!floors) {
      Result<plan::Request> request = request_of({place, base.read.folder}, base.catalog);
      if (!request) return {};
      request->workshop = base.workshop;
      floors = std::make_shared<plan::Floors>(std::move(*request));
      known->push_back({machine, floors});
    }
    return [floors](const facts::Job& layout,
                    const search::Bound* alike) -> std::optional<search::Bound> {
      plan::Floor same;
      if (alike != nullptr) same = {alike->step, alike->ram, alike->vram, true, false};
      const Result<plan::Floor> floor = floors->of(layout, alike != nullptr ? &same : nullptr);
      if (!floor || !(floor->any || floor->refused)) return std::nullopt;
      return search::Bound{floor->step, floor->ram, floor->vram, floor->refused};
    };
  };
}

Result<facts::Machine> machine_named(const Base& base, const std::string& name) {
  facts::Job job;
  job.machine.name = name;
  // Named on the command line: files lie where the person is.
  Result<facts::Machine> machine = base.catalog.machine_of(job, {});
  if (machine || !base.catalog.gpu(name)) return machine;
  job.machine = {};
  job.machine.gpu = name;
  return base.catalog.machine_of(job, {});
}

}  // namespace steelyard::cli
