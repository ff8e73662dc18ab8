// The top of the plan's page: what was planned, and whether it fits.
#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "base/text.h"
#include "report/plan_sections.h"

namespace steelyard::report {
namespace {

using facts::name_of;

std::string counted(std::int64_t count, std::string_view singular, std::string_view plural) {
  return fmt::format("{} {}", grouped(count), count == 1 ? singular : plural);
}

std::string machine_words(const facts::Plan& plan, const Paint& paint) {
  const facts::Machine& machine = plan.machine;
  const std::int64_t gpus = plan.job.machine.gpus.value_or(machine.gpus);
  const std::int64_t nodes = plan.job.machine.nodes;
  const std::string gpu =
      paint.outside(machine.gpu.name.empty() ? machine.gpu.id : machine.gpu.name);
  const std::string each = fmt::format("{} {} {}", gpus, paint.signs().times, gpu);
  const std::string name = paint.outside(machine.name.empty() ? machine.id : machine.name);
  if (machine.kind == "bare-gpu" || name.empty()) {
    if (nodes == 1) return each;
    return fmt::format("{} nodes of {}", grouped(nodes), each);
  }
  if (nodes == 1) return fmt::format("{} with {}", name, each);
  return fmt::format("{} {} {} with {} each", grouped(nodes), paint.signs().times, name, each);
}

std::string batch_words(const facts::Plan& plan) {
  const facts::TrainKeys& train = plan.job.train;
  std::string words = "unknown batch";
  if (train.micro_batch) words = counted(*train.micro_batch, "sample", "samples");
  if (train.sequence_length) words += fmt::format(" of {} tokens", grouped(*train.sequence_length));
  if (train.image_size.size() == 2) {
    words += fmt::format(" of {} x {} pixels", train.image_size[0], train.image_size[1]);
  }
  words += " per GPU and pass";
  if (train.global_batch) words += fmt::format(", {} per step", grouped(*train.global_batch));
  return words;
}

void add_parallel_words(const facts::ParallelKeys& parallel, std::vector<std::string>& words) {
  if (parallel.sharding != facts::Sharding::none) {
    // Ranks that hold the same weights: those that split a sequence do too.
    const std::int64_t data = parallel.data.value_or(1);
    const std::int64_t alike = data * parallel.context;
    const std::int64_t group = parallel.shard_group.value_or(alike);
    std::string over = fmt::format("{} over {}", name_of(parallel.sharding), grouped(group));
    if (group != alike) over += fmt::format(" of {}", grouped(alike));
    if (parallel.context > 1) over += fmt::format(" (data parallel {})", grouped(data));
    words.push_back(std::move(over));
  }
  const auto add = [&](std::string_view what, std::int64_t ways) {
    if (ways > 1) words.push_back(fmt::format("{} {}", what, grouped(ways)));
  };
  if (parallel.sharding == facts::Sharding::none) add("data parallel", parallel.data.value_or(1));
  add("tensor parallel", parallel.tensor);
  add("pipeline", parallel.pipeline);
  add("context parallel", parallel.context);
  add("expert parallel", parallel.expert);
}

std::vector<std::string> training_words(const facts::Plan& plan) {
  const facts::TrainKeys& train = plan.job.train;
  std::vector<std::string> words = {plan.job.framework};
  if (train.method != facts::Method::full) words.emplace_back(name_of(train.method));
  add_parallel_words(plan.job.parallel, words);
  words.emplace_back(name_of(train.precision));
  words.emplace_back(name_of(train.optimizer.name));
  if (train.recompute.mode != facts::RecomputeMode::none) {
    words.push_back(fmt::format("recompute {}", name_of(train.recompute.mode)));
  }
  words.push_back(fmt::format("{} attention", name_of(train.attention)));
  words.push_back(batch_words(plan));
  return words;
}

// "GPU needs 102.3 GiB, 22.7 GiB more than it has"; empty when it fits or nobody can tell.
std::string shortage(std::string_view whose, const std::optional<bool>& fits, Bytes needed,
                     const facts::Known<Bytes>& capacity) {
  if (fits.value_or(true) || !capacity) return {};
  return fmt::format("{} needs {}, {} more than the {} it has", whose, to_text(needed),
                     to_text(needed - *capacity), to_text(*capacity));
}

std::string used_of(std::string_view what, std::string_view where, Bytes used,
                    const facts::Known<Bytes>& capacity, const Paint& paint) {
  if (!capacity) {
    return fmt::format("{} {} {}, capacity {}", what, to_text(used), where,
                       unknown(capacity.note, paint));
  }
  return fmt::format("{} {} of {} {} ({})", what, to_text(used), to_text(*capacity), where,
                     percent(used / *capacity));
}

constexpr std::string_view kNoWord = "DOES NOT FIT";

// The verdict's word, and its reasons to the right of it.
Lines beside(std::string_view word, Ink ink, const std::vector<std::string>& reasons,
             const Paint& paint) {
  Lines lines;
  for (const std::string& reason : reasons) {
    lines.push_back((lines.empty() ? paint.ink(word, ink) : std::string(word.size(), ' ')) + "   " +
                    reason);
  }
  return lines;
}

}  // namespace

Lines flowed(const std::vector<std::string>& phrases, std::size_t width, const Paint& paint) {
  const std::string_view separator = paint.signs().separator;
  Lines lines;
  for (const std::string& phrase : phrases) {
    const bool begins =
        lines.empty() ||
        display_width(lines.back()) + display_width(separator) + display_width(phrase) > width;
    if (begins) {
      const auto parts = wrapped(phrase, width);
      lines.insert(lines.end(), parts.begin(), parts.end());
    } else {
      lines.back() += std::string(separator) + phrase;
    }
  }
  return lines;
}

std::string sentence_of(std::string_view text, const Paint& paint) {
  std::string sentence = paint.outside(text);
  if (sentence.empty()) return sentence;
  constexpr std::string_view kDrive = "nvme";
  if (sentence.starts_with(kDrive)) {
    sentence.replace(0, kDrive.size(), "NVMe");
  } else if (sentence.front() >= 'a' && sentence.front() <= 'z') {
    sentence.front() = static_cast<char>(sentence.front() - 'a' + 'A');
  }
  if (sentence.find_last_of(".!?") != sentence.size() - 1) sentence += '.';
  return sentence;
}

std::string unknown(std::string_view why, const Paint& paint) {
  return why.empty() ? "unknown" : fmt::format("unknown ({})", paint.outside(why));
}

namespace {

// "dpo with reference", "ppo with reference, critic, reward"; nothing where the model is alone.
std::string roles_words(const facts::Job& job) {
  if (job.train.objective == facts::Objective::sft) return "";
  std::string words(name_of(job.train.objective));
  for (const facts::RoleModel& role : job.model.roles) {
    words += (&role == &job.model.roles.front() ? " with " : ", ");
    words += name_of(role.role);
  }
  return words;
}

}  // namespace

Lines title_lines(const facts::Plan& plan, const Paint& paint) {
  const std::string model = paint.outside(plan.model.name);
  const std::string name = plan.job.name.empty() ? model : paint.outside(plan.job.name);
  Lines lines = {paint.ink(shortened(name, paint.columns()), Ink::strong)};
  std::vector<std::string> what = {model, to_text(plan.model.parameters) + " parameters"};
  if (std::string roles = roles_words(plan.job); !roles.empty()) what.push_back(std::move(roles));
  what.push_back(machine_words(plan, paint));
  for (const std::vector<std::string>& words : {what, training_words(plan)}) {
    const Lines flow = flowed(words, paint.columns(), paint);
    lines.insert(lines.end(), flow.begin(), flow.end());
  }
  return lines;
}

Lines verdict_lines(const facts::Plan& plan, const Paint& paint) {
  const std::string vram =
      shortage("each GPU", plan.fits_vram, plan.vram.fullest.peak_device_used, plan.vram.capacity);
  std::string ram = shortage("each node", plan.fits_ram, plan.ram.peak, plan.ram.capacity);
  if (const facts::NodeLoad* node = plan.short_node()) {
    ram = shortage(fmt::format("NUMA node {}", node->node), false, node->need, node->memory);
  }
  if (!plan.fits()) {
    std::vector<std::string> reasons;
    for (const std::string& reason : {vram, ram}) {
      const Lines wrap = wrapped(reason, paint.columns() - kNoWord.size() - 3);
      reasons.insert(reasons.end(), wrap.begin(), wrap.end());
    }
    return beside(kNoWord, Ink::bad, reasons, paint);
  }
  const bool sure = plan.fits_vram && plan.fits_ram;
  const std::string_view word = sure ? "FITS" : "CANNOT TELL";
  const std::vector<std::string> phrases = {
      used_of("VRAM", "per GPU", plan.vram.fullest.peak_device_used, plan.vram.capacity, paint),
      used_of("RAM", "per node", plan.ram.peak, plan.ram.capacity, paint)};
  return beside(word, sure ? Ink::good : Ink::strong,
                flowed(phrases, paint.columns() - word.size() - 3, paint), paint);
}

}  // namespace steelyard::report
