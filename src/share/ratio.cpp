#include "share/ratio.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "base/format.h"
#include "base/parallel.h"

namespace steelyard::share {
namespace {

using facts::GpuRatio;
using facts::MachineForMix;
using facts::MachineRatio;
using facts::RatioCell;

// As `plan` judges an idle host (src/plan/balance.cpp): less than this share of its memory is used,
// page cache included.
constexpr double kIdleRamShare = 0.25;

facts::MixedJob described(const MixMember& member) {
  return {.name = member.job.name,
          .weight = member.weight,
          .gpus = member.job.machine.gpus.value_or(kUsualGpus),
          .nodes = std::max<std::int64_t>(1, member.job.machine.nodes)};
}

facts::Machine bare(const facts::Gpu& gpu, std::int64_t gpus) {
  facts::Machine machine;
  machine.id = gpu.id;
  machine.name = gpu.name;
  machine.kind = "bare-gpu";
  machine.gpus = gpus;
  machine.gpu = gpu;
  return machine;
}

facts::RuleOfThumb rule_of(const facts::BalancePlan& balance) {
  return {balance.rule_low, balance.rule_high, balance.rule_open_ended};
}

RatioCell cell_of(const MixMember& member, const facts::MixedJob& job, const facts::Gpu& gpu) {
  RatioCell cell;
  facts::Machine machine = bare(gpu, job.gpus);
  if (job.nodes > 1) machine.network_per_gpu = gpu.reference_network;
  const Result<facts::Plan> plan =
      member.planner(moved(member.job, job.nodes, job.gpus), machine, Depth::full);
  if (!plan) {
    cell.refused = one_line(plan.error());
    return cell;
  }
  cell.fits = plan->fits_vram.value_or(false);
  cell.vram_peak = plan->vram.fullest.peak_device_used;
  cell.ram_per_gpu = ceil_divide(plan->ram.peak, job.gpus);
  cell.page_cache_per_gpu = ceil_divide(plan->ram.page_cache_wanted, job.gpus);
  cell.paged_out = plan->vram.fullest.paged_out;
  cell.rule = rule_of(plan->balance);
  return cell;
}

// The rule that asks for most: of two tiers the larger one.
bool asks_for_less(const facts::RuleOfThumb& a, const facts::RuleOfThumb& b) {
  return std::tuple(a.low.value(), a.high.value()) < std::tuple(b.low.value(), b.high.value());
}

void sum_up(const RatioQuestion& question, GpuRatio& line) {
  double all = 0.0, fitting = 0.0, weighted = 0.0;
  Bytes most, cached;
  for (std::size_t j = 0; j < line.cells.size(); ++j) {
    const RatioCell& cell = line.cells[j];
    const double weight = question.jobs[j].weight;
    all += weight;
    if (cell.rule && asks_for_less(line.rule, *cell.rule)) line.rule = *cell.rule;
    if (!cell.fits) continue;
    fitting += weight;
    weighted += weight * cell.ram_per_gpu.real();
    if (cell.ram_per_gpu > most) {
      most = cell.ram_per_gpu;
      line.neediest = j;
    }
    cached = std::max(cached, cell.ram_per_gpu + cell.page_cache_per_gpu);
  }
  if (question.rule) line.rule = *question.rule;
  if (all > 0.0) line.fitting = fitting / all;
  if (fitting <= 0.0) return;
  line.ram_most = most;
  line.ram_mean = Bytes(checked_round(weighted / fitting));
  line.with_page_cache = cached;
  line.ratio_most = most / line.vram;
  line.ratio_mean = *line.ram_mean / line.vram;
}

std::vector<GpuRatio> over_gpus(const RatioQuestion& question,
                                const std::vector<facts::MixedJob>& jobs) {
  std::vector<const facts::Gpu*> kinds;
  for (const facts::Gpu& gpu : question.gpus) {
    if (gpu.memory && gpu.memory->value() > 0) kinds.push_back(&gpu);
  }
  std::sort(kinds.begin(), kinds.end(), [](const facts::Gpu* a, const facts::Gpu* b) {
    return std::tuple(*a->memory, std::string_view(a->id)) <
           std::tuple(*b->memory, std::string_view(b->id));
  });
  std::vector<GpuRatio> lines(kinds.size());
  for (std::size_t g = 0; g < kinds.size(); ++g) {
    lines[g].gpu = kinds[g]->id;
    lines[g].vram = *kinds[g]->memory;
    lines[g].cells.resize(jobs.size());
  }
  for_each_side_by_side(kinds.size() * jobs.size(), [&](std::size_t i) {
    const std::size_t g = i / jobs.size(), j = i % jobs.size();
    lines[g].cells[j] = cell_of(question.jobs[j], jobs[j], *kinds[g]);
  });
  for (GpuRatio& line : lines) sum_up(question, line);
  return lines;
}

// What one job needs on one machine: its GPUs on the fewest nodes that hold them; a node that has
// room for several copies runs several, on one operating system and from one dataset.
struct Needed {
  std::string refused, lacks;
  Bytes ram_per_gpu, page_cache_per_gpu;
};

Needed need_of(const MixMember& member, const facts::MixedJob& job, const RatioCell& cell,
               const facts::Machine& machine) {
  Needed needed;
  const std::int64_t gpus = checked_multiply(job.gpus, job.nodes);
  const std::int64_t each = std::min(gpus, machine.gpus);
  if (gpus % each != 0) {
    needed.refused = fmt::format("{} GPUs do not fill nodes of {} evenly", gpus, each);
    return needed;
  }
  if (!cell.refused.empty()) {
    needed.refused = cell.refused;
    return needed;
  }
  // What a card holds does not depend on its host: the cell knows.
  if (cell.vram_peak > *machine.gpu.memory && !cell.fits) {
    needed.lacks = fmt::format("a GPU lacks {}", to_text(cell.vram_peak - *machine.gpu.memory));
    return needed;
  }
  facts::Machine host = machine;
  if (gpus > each && !host.network_per_gpu) host.network_per_gpu = host.gpu.reference_network;
  const Result<facts::Plan> plan =
      member.planner(moved(member.job, gpus / each, each), host, Depth::without_vram);
  if (!plan) {
    needed.refused = one_line(plan.error());
    return needed;
  }
  const std::int64_t copies = machine.gpus / each;
  const Bytes system = plan->ram.phases[0][facts::RamCategory::system];
  const Bytes all = system + (plan->ram.peak - system) * copies;
  needed.ram_per_gpu = ceil_divide(all, each * copies) + cell.paged_out;
  needed.page_cache_per_gpu = ceil_divide(plan->ram.page_cache_wanted, each * copies);
  return needed;
}

void judge_host(MachineRatio& line) {
  if (!line.ram_per_gpu || !line.needed) return;
  if (*line.needed > *line.ram_per_gpu) {
    line.verdict = MachineForMix::ram_short;
    line.why += fmt::format(" lacks {} per GPU", to_text(*line.needed - *line.ram_per_gpu));
    return;
  }
  const bool idle = (*line.with_page_cache / *line.ram_per_gpu).value() < kIdleRamShare;
  line.verdict = idle ? MachineForMix::over_bought : MachineForMix::enough;
}

MachineRatio judged(const RatioQuestion& question, const std::vector<facts::MixedJob>& jobs,
                    const GpuRatio& gpu, const facts::Machine& machine) {
  MachineRatio line{.machine = machine.id, .gpu = machine.gpu.id, .gpus = machine.gpus};
  if (machine.price) {
    line.price_per_gpu_hour = machine.price->per_hour / static_cast<double>(machine.gpus);
    line.currency = machine.price->currency;
  }
  if (machine.host.memory) {
    line.ram_per_gpu = Bytes(machine.host.memory->value() / machine.gpus);
    line.ratio_installed = *line.ram_per_gpu / *machine.gpu.memory;
  }
  Bytes most, cached;
  for (std::size_t j = 0; j < jobs.size(); ++j) {
    const Needed needed = need_of(question.jobs[j], jobs[j], gpu.cells[j], machine);
    if (!needed.refused.empty() || !needed.lacks.empty()) {
      line.verdict = needed.refused.empty() ? MachineForMix::vram_short : MachineForMix::refused;
      line.why = fmt::format("{}: {}", jobs[j].name,
                             needed.refused.empty() ? needed.lacks : needed.refused);
      return line;
    }
    if (needed.ram_per_gpu > most) {
      most = needed.ram_per_gpu;
      line.why = jobs[j].name;
    }
    cached = std::max(cached, needed.ram_per_gpu + needed.page_cache_per_gpu);
  }
  line.needed = most;
  line.with_page_cache = cached;
  line.ratio_needed = most / *machine.gpu.memory;
  judge_host(line);
  return line;
}

std::vector<MachineRatio> over_machines(const RatioQuestion& question,
                                        const std::vector<facts::MixedJob>& jobs,
                                        const std::vector<GpuRatio>& gpus) {
  std::vector<std::pair<const facts::Machine*, const GpuRatio*>> pairs;
  for (const facts::Machine& machine : question.machines) {
    const auto line = std::ranges::find(gpus, machine.gpu.id, &GpuRatio::gpu);
    if (line != gpus.end() && machine.gpu.memory && machine.gpus > 0) {
      pairs.emplace_back(&machine, &*line);
    }
  }
  std::vector<MachineRatio> lines(pairs.size());
  for_each_side_by_side(pairs.size(), [&](std::size_t i) {
    lines[i] = judged(question, jobs, *pairs[i].second, *pairs[i].first);
  });
  std::sort(lines.begin(), lines.end(), [](const MachineRatio& a, const MachineRatio& b) {
    const auto key = [](const MachineRatio& line) {
      return std::tuple(line.verdict, !line.price_per_gpu_hour, line.currency,
                        line.price_per_gpu_hour.value_or(0.0), line.machine);
    };
    return key(a) < key(b);
  });
  return lines;
}

}  // namespace

facts::MixRatio ratio(const RatioQuestion& question) {
  facts::MixRatio answer{.mix = question.mix, .about = question.about, .rule = question.rule};
  for (const MixMember& member : question.jobs) answer.jobs.push_back(described(member));
  answer.gpus = over_gpus(question, answer.jobs);
  answer.machines = over_machines(question, answer.jobs, answer.gpus);
  return answer;
}

}  // namespace steelyard::share
