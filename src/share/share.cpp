// From jobs to the plan of a shared server: alone, host memory, places, and what is left of each
// job's pace.
#include "share/share.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

#include "base/format.h"
#include "base/parallel.h"
#include "share/contention.h"
#include "share/memory.h"
#include "share/moving.h"
#include "share/place.h"

namespace steelyard::share {
namespace {

using facts::PlacedJob;
using facts::Seat;
using facts::SharedPart;
using facts::SharedResource;
using facts::SharePlan;
using facts::ShareVerdict;

// One kind of job: its copies are planned once.
struct Kind {
  const SharingJob* sharing = nullptr;
  facts::Job job{};
  std::int64_t gpus = 1;
  std::string refused{};
  std::optional<Guest> guest{};
  Wants wants{};
  std::optional<Bytes> memory{};  // of the host, where less page cache is left than alone
};

// The host's storage by name; null when its rate is unknown.
const facts::Storage* storage_named(const facts::Machine& machine, const std::string& name) {
  const auto found = std::ranges::find(machine.storage, name, &facts::Storage::name);
  return found == machine.storage.end() || !found->read ? nullptr : &*found;
}

void plan_alone(const facts::Machine& machine, Kind& kind) {
  const SharingJob& sharing = *kind.sharing;
  kind.gpus = sharing.gpus.value_or(sharing.job.machine.gpus.value_or(machine.gpus));
  if (sharing.job.machine.nodes > 1 && !sharing.gpus) {
    kind.refused =
        fmt::format("it asks for {} nodes; FILE:GPUS puts it on one", sharing.job.machine.nodes);
    return;
  }
  if (kind.gpus > machine.gpus) {
    kind.refused = fmt::format("it asks for {} GPUs, the machine has {}", kind.gpus, machine.gpus);
    return;
  }
  kind.job = moved(sharing.job, 1, kind.gpus);
  Result<facts::Plan> plan = sharing.planner(kind.job, machine, Depth::full);
  if (!plan) {
    kind.refused = one_line(plan.error());
    return;
  }
  // Fewer cores must not mean fewer loader processes.
  kind.job.data.workers = plan->job.data.workers;
  kind.job.data.location = plan->job.data.location;
  kind.guest = Guest{kind.job, sharing.file, sharing.planner, std::move(*plan)};
}

// A share of the time: what is not waiting for data.
double busy_of(const facts::Plan& plan) {
  if (!plan.pace.step || plan.pace.step->value() <= 0.0) return 1.0;
  const double stall = (plan.pace.breakdown.data_stall / *plan.pace.step).value();
  return std::clamp(1.0 - stall, 0.01, 1.0);
}

class Sharing {
 public:
  explicit Sharing(const ShareQuestion& question)
      : question_(question), machine_(question.machine) {
    answer_.machine = machine_.id;
    answer_.gpus = machine_.gpus;
    fill_room();
  }

  SharePlan run() {
    plan_kinds();
    list_jobs();
    answer_.ram = shared_ram(answer_.jobs, machine_.host.memory);
    judge();
    order_ = staying_jobs();
    share_cache();
    find_places();
    if (placement_) contend();
    return std::move(answer_);
  }

 private:
  void fill_room() {
    room_.gpus = machine_.gpus;
    room_.sockets =
        std::clamp<std::int64_t>(machine_.host.sockets.value.value_or(1), 1, machine_.gpus);
    room_.per_uplink = std::max<std::int64_t>(1, machine_.host.gpus_per_uplink.value.value_or(1));
    if (machine_.gpu.memory) room_.vram = *machine_.gpu.memory;
    if (machine_.gpu.host_link) room_.uplink = machine_.gpu.host_link->value();
    if (machine_.host.memory)
      room_.ram_per_socket = ceil_divide(*machine_.host.memory, room_.sockets);
    room_.time_slice = question_.time_slice;
    if (question_.mig) room_.mig = &*question_.mig;
    for (std::int64_t gpu = 0; gpu < room_.gpus; ++gpu) {
      answer_.socket_of_gpu.push_back(socket_of(room_, gpu));
    }
  }

  void plan_kinds() {
    kinds_.resize(question_.jobs.size());
    for (std::size_t k = 0; k < kinds_.size(); ++k) kinds_[k].sharing = &question_.jobs[k];
    for_each_side_by_side(kinds_.size(), [&](std::size_t k) { plan_alone(machine_, kinds_[k]); });
    for (const Kind& kind : kinds_) {
      if (kind.guest) assume_storage(storage_of(kind.job));
    }
  }

  // What the planner takes where a rate is unknown becomes a figure that can be shared. It assumes
  // nothing of the network's.
  void assume_storage(const std::string& name) {
    if (name == "network" || question_.assumed_storage.value() <= 0.0) return;
    auto at = std::ranges::find(machine_.storage, name, &facts::Storage::name);
    if (at == machine_.storage.end()) {
      facts::Storage storage;
      storage.name = name;
      at = machine_.storage.insert(machine_.storage.end(), std::move(storage));
    }
    if (!at->read) at->read = {question_.assumed_storage, facts::Provenance::assumed};
  }

  void list_jobs() {
    for (std::size_t k = 0; k < kinds_.size(); ++k) {
      const Kind& kind = kinds_[k];
      for (std::int64_t copy = 1; copy <= kind.sharing->copies; ++copy) {
        PlacedJob job{.name = kind.sharing->job.name,
                      .file = kind.sharing->file,
                      .copy = copy,
                      .copies = kind.sharing->copies,
                      .gpus = kind.gpus,
                      .refused = kind.refused};
        if (kind.guest) {
          job.alone = kind.guest->alone;
          job.step_alone = kind.guest->alone.pace.step;
        }
        answer_.jobs.push_back(std::move(job));
        kind_of_.push_back(k);
      }
    }
  }

  // What each kind of those that stay keeps of the page cache that it has alone, and what it then
  // wants of the rest.
  void share_cache() {
    std::vector<PlacedJob> staying;
    for (const std::size_t i : order_) staying.push_back(answer_.jobs[i]);
    const facts::SharedRam ram = shared_ram(staying, machine_.host.memory);
    std::map<std::string, std::size_t> files;
    std::vector<double> wanted;
    for (const PlacedJob& job : staying) {
      const double wants = job.alone->ram.page_cache_wanted.real();
      const auto [at, fresh] = files.try_emplace(job.file, wanted.size());
      if (fresh) wanted.push_back(wants);
      wanted[at->second] = std::max(wanted[at->second], wants);
    }
    const std::vector<double> given =
        ram.page_cache_left ? fair_shares(ram.page_cache_left->real(), wanted) : wanted;
    for (Kind& kind : kinds_) {
      const auto at = files.find(kind.sharing->file);
      if (!kind.guest || at == files.end() || !machine_.host.memory) continue;
      const Bytes has(checked_round(given[at->second]));
      if (has < cache_alone(kind)) kind.memory = kind.guest->alone.ram.peak + has;
    }
    for_each_side_by_side(kinds_.size(), [&](std::size_t k) {
      if (kinds_[k].guest) kinds_[k].wants = wants_of(*kinds_[k].guest, machine_, kinds_[k].memory);
    });
  }

  // Of the host's memory, once it is known.
  [[nodiscard]] Bytes cache_alone(const Kind& kind) const {
    const facts::RamPlan& ram = kind.guest->alone.ram;
    return std::min(ram.page_cache_wanted, std::max(Bytes(), *machine_.host.memory - ram.peak));
  }

  [[nodiscard]] Tenant tenant_of(std::size_t job) const {
    const Kind& kind = kinds_[kind_of_[job]];
    const facts::Plan& plan = kind.guest->alone;
    // The planner has all ranks behind one uplink share it already.
    const std::int64_t behind = std::min(room_.per_uplink, kind.gpus);
    return {.gpus = kind.gpus,
            // Of a card of unknown memory nobody can say that it is full.
            .vram = room_.vram == Bytes() ? Bytes() : plan.vram.fullest.peak_device_used,
            .busy = busy_of(plan),
            .uplink = kind.wants.uplink * room_.uplink / static_cast<double>(behind),
            .ram = ceil_divide(plan.ram.peak, kind.gpus)};
  }

  // Those that need not move, in an order of their own: the order of the arguments does not matter.
  [[nodiscard]] std::vector<std::size_t> staying_jobs() const {
    const bool all =
        answer_.verdict == ShareVerdict::fits || answer_.verdict == ShareVerdict::one_by_one;
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < answer_.jobs.size(); ++i) {
      const bool moves =
          std::ranges::find(answer_.move, static_cast<std::int64_t>(i)) != answer_.move.end();
      if (answer_.jobs[i].alone && (all || !moves)) order.push_back(i);
    }
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      const auto key = [&](std::size_t i) {
        const PlacedJob& job = answer_.jobs[i];
        return std::tuple(-job.gpus, std::string_view(job.file), std::string_view(job.name),
                          job.copy, i);
      };
      return key(a) < key(b);
    });
    return order;
  }

  void find_places() {
    for (const std::size_t i : order_) tenants_.push_back(tenant_of(i));
    placement_ = place(room_, tenants_);
    if (!placement_) return;
    answer_.exact = placement_->exact;
    for (std::size_t t = 0; t < order_.size(); ++t) {
      PlacedJob& job = answer_.jobs[order_[t]];
      const Sitting& sitting = placement_->sittings[t];
      job.on = sitting.gpus;
      for (const std::int64_t gpu : job.on) {
        const std::int64_t socket = socket_of(room_, gpu);
        if (std::ranges::find(job.sockets, socket) == job.sockets.end()) {
          job.sockets.push_back(socket);
        }
      }
      if (sitting.profile >= 0) {
        job.seat = Seat::mig;
        const auto& profile = room_.mig->profiles[static_cast<std::size_t>(sitting.profile)];
        job.profile = profile.name;
        job.profile_memory = profile.memory;
      }
    }
    mark_turns();
  }

  void mark_turns() {
    std::map<std::int64_t, int> jobs_on;
    for (const PlacedJob& job : answer_.jobs) {
      for (const std::int64_t gpu : job.on) ++jobs_on[gpu];
    }
    for (PlacedJob& job : answer_.jobs) {
      if (job.seat == Seat::mig) continue;
      for (const std::int64_t gpu : job.on) {
        if (jobs_on[gpu] > 1) job.seat = Seat::time_slice;
      }
    }
  }

  void judge() {
    const Fit fit{.room = &room_, .capacity = answer_.ram.capacity};
    const Judgement judgement = judged(answer_, fit, [&](const std::vector<std::size_t>& jobs) {
      std::vector<Tenant> tenants;
      for (const std::size_t i : jobs) tenants.push_back(tenant_of(i));
      return place(room_, tenants).has_value();
    });
    answer_.verdict = judgement.verdict;
    answer_.sentences = judgement.sentences;
    answer_.move.assign(judgement.move.begin(), judgement.move.end());
  }

  // What each job gets of the resources that do not suffice for all.
  struct Given {
    double storage = 1.0, uplink = 1.0;
    std::optional<std::int64_t> cores{};
  };

  void contend() {
    std::vector<Given> given(order_.size());
    share_storage(given);
    share_cores(given);
    share_uplinks(given);
    for_each_side_by_side(order_.size(), [&](std::size_t t) { slow_down(t, given[t]); });
  }

  [[nodiscard]] const Kind& kind_at(std::size_t t) const { return kinds_[kind_of_[order_[t]]]; }

  void share_storage(std::vector<Given>& given) {
    std::map<std::string, std::vector<std::size_t>> users;
    for (std::size_t t = 0; t < order_.size(); ++t) users[storage_of(kind_at(t).job)].push_back(t);
    for (const auto& [name, jobs] : users) {
      const facts::Storage* storage = storage_named(machine_, name);
      std::vector<double> wanted;
      for (const std::size_t t : jobs) wanted.push_back(kind_at(t).wants.storage);
      const double sum = std::accumulate(wanted.begin(), wanted.end(), 0.0);
      const double rate = storage == nullptr ? 0.0 : storage->read->value();
      if (storage != nullptr) {
        answer_.sums.push_back({SharedResource::storage, name, rate, sum * rate});
      }
      if (storage == nullptr) note_unknown(name, jobs);
      if (sum <= 1.0 || storage == nullptr) continue;
      const std::vector<double> shares = fair_shares(1.0, wanted);
      for (std::size_t i = 0; i < jobs.size(); ++i) {
        if (shares[i] >= wanted[i]) continue;
        given[jobs[i]].storage = shares[i];
        part_of(jobs[i], SharedResource::storage, wanted[i] * rate, shares[i] * rate);
      }
    }
  }

  // A rate that nobody knows limits no plan: that is said, not hidden.
  void note_unknown(const std::string& name, const std::vector<std::size_t>& jobs) {
    std::string names;
    for (const std::size_t t : jobs) {
      const std::string& job = kind_at(t).job.name;
      if (names.find(job) == std::string::npos) names += (names.empty() ? "" : ", ") + job;
    }
    answer_.sentences.push_back(fmt::format(
        "the rate of the {} storage is unknown: what waiting for it costs is not counted ({})",
        name, names));
  }

  void share_cores(std::vector<Given>& given) {
    const auto all = cores_of(machine_);
    if (!all) return;
    std::vector<double> wanted;
    for (std::size_t t = 0; t < order_.size(); ++t) {
      wanted.push_back(static_cast<double>(kind_at(t).wants.cores));
    }
    const double sum = std::accumulate(wanted.begin(), wanted.end(), 0.0);
    answer_.sums.push_back({SharedResource::cores, "", static_cast<double>(*all), sum});
    if (sum <= static_cast<double>(*all)) return;
    const std::vector<double> shares = fair_shares(static_cast<double>(*all), wanted);
    for (std::size_t t = 0; t < order_.size(); ++t) {
      if (shares[t] >= wanted[t]) continue;
      const std::int64_t cores = std::max<std::int64_t>(1, static_cast<std::int64_t>(shares[t]));
      given[t].cores = cores;
      part_of(t, SharedResource::cores, wanted[t], static_cast<double>(cores));
    }
  }

  // On each uplink the jobs whose GPUs are behind it; a job is as fast as on its slowest one.
  void share_uplinks(std::vector<Given>& given) {
    std::map<std::int64_t, std::vector<std::size_t>> behind;
    for (std::size_t t = 0; t < order_.size(); ++t) {
      for (const std::int64_t gpu : placement_->sittings[t].gpus) {
        behind[uplink_of(room_, gpu)].push_back(t);  // once for each GPU
      }
    }
    std::vector<double> least(order_.size(), 1.0);
    for (const auto& [uplink, ranks] : behind) {
      std::vector<double> wanted;
      for (const std::size_t t : ranks) wanted.push_back(tenants_[t].uplink);
      const double sum = std::accumulate(wanted.begin(), wanted.end(), 0.0);
      if (sum > room_.uplink) {
        answer_.sums.push_back(
            {SharedResource::uplink, fmt::format("uplink {}", uplink), room_.uplink, sum});
      }
      const std::vector<double> shares = fair_shares(room_.uplink, wanted);
      for (std::size_t i = 0; i < ranks.size(); ++i) {
        if (wanted[i] > 0.0) least[ranks[i]] = std::min(least[ranks[i]], shares[i] / wanted[i]);
      }
    }
    for (std::size_t t = 0; t < order_.size(); ++t) {
      constexpr double kRounding = 1e-9;
      if (least[t] >= 1.0 - kRounding) continue;
      given[t].uplink = kind_at(t).wants.uplink * least[t];
      part_of(t, SharedResource::uplink, tenants_[t].uplink, tenants_[t].uplink * least[t]);
    }
  }

  void part_of(std::size_t t, SharedResource resource, double wanted, double has) {
    answer_.jobs[order_[t]].parts.push_back({resource, wanted, has, Ratio(1.0)});
  }

  [[nodiscard]] Part whole_part(std::size_t t, const Given& given) const {
    Part part{.memory = kind_at(t).memory,
              .storage = given.storage,
              .cores = given.cores,
              .uplink = given.uplink};
    const Sitting& sitting = placement_->sittings[t];
    if (sitting.profile >= 0) {
      const auto& profile = room_.mig->profiles[static_cast<std::size_t>(sitting.profile)];
      part.arithmetic = profile.sm_share.value();
      part.bandwidth = profile.memory_share.value();
    }
    return part;
  }

  [[nodiscard]] Part only(const Part& part, SharedResource resource) const {
    switch (resource) {
      case SharedResource::gpu: return {.arithmetic = part.arithmetic, .bandwidth = part.bandwidth};
      case SharedResource::page_cache: return {.memory = part.memory};
      case SharedResource::storage: return {.memory = part.memory, .storage = part.storage};
      case SharedResource::cores: return {.cores = part.cores};
      case SharedResource::uplink: return {.uplink = part.uplink};
    }
    return {};
  }

  // The plan with what is left, and what each resource alone would cost.
  void slow_down(std::size_t t, const Given& given) {
    const Kind& kind = kind_at(t);
    PlacedJob& job = answer_.jobs[order_[t]];
    const Part part = whole_part(t, given);
    const double turns = turns_of(t);
    job.together = job.alone;
    job.step_together = job.step_alone;
    if (kind.memory) note_cache(kind, job);
    if (job.seat == Seat::mig) {
      job.parts.push_back({SharedResource::gpu, 1.0, part.arithmetic, Ratio(1.0)});
    } else if (turns > 1.0) {
      job.parts.push_back(
          {SharedResource::gpu, tenants_[t].busy, tenants_[t].busy / turns, Ratio(turns)});
    }
    if (job.parts.empty() || !job.step_alone) return;
    const Result<facts::Plan> less =
        kind.guest->planner(kind.job, with_part(machine_, kind.job, part), Depth::without_vram);
    if (!less || !less->pace.step) return;
    for (SharedPart& one : job.parts) {
      if (one.resource == SharedResource::gpu && turns > 1.0) continue;
      const Result<facts::Plan> with_one = kind.guest->planner(
          kind.job, with_part(machine_, kind.job, only(part, one.resource)), Depth::without_vram);
      if (with_one && with_one->pace.step) {
        one.slower = std::max(Ratio(1.0), *with_one->pace.step / *job.step_alone);
      }
    }
    // The slower of the two: who waits for data does not wait for the GPU.
    const Seconds step = std::max({*less->pace.step, *job.step_alone * turns, *job.step_alone});
    job.together->pace = less->pace;
    job.together->feed = less->feed;
    job.step_together = step;
  }

  void note_cache(const Kind& kind, PlacedJob& job) const {
    job.parts.push_back({SharedResource::page_cache, cache_alone(kind).real(),
                         (*kind.memory - kind.guest->alone.ram.peak).real(), Ratio(1.0)});
  }

  // How much longer a step takes because others have the GPUs meanwhile.
  [[nodiscard]] double turns_of(std::size_t t) const {
    if (placement_->sittings[t].profile >= 0) return 1.0;
    const double share = gpu_share(room_, tenants_, placement_->sittings, t);
    return share >= tenants_[t].busy ? 1.0 : tenants_[t].busy / share;
  }

  const ShareQuestion& question_;
  facts::Machine machine_;
  Room room_;
  SharePlan answer_;
  std::vector<Kind> kinds_;
  std::vector<std::size_t> kind_of_;  // of each job of the answer
  std::vector<std::size_t> order_;    // of the jobs that could be planned
  std::vector<Tenant> tenants_;       // in that order
  std::optional<Placement> placement_;
};

}  // namespace

SharePlan share(const ShareQuestion& question) {
  return Sharing(question).run();
}

}  // namespace steelyard::share
