// Ranks and NUMA nodes: a section of the plan's page and of `why JOB ram` and `why JOB feed`.
#include <fmt/format.h>

#include "base/format.h"
#include "base/text.h"
#include "report/plan_sections.h"

namespace steelyard::report {
namespace {

std::string_view when(facts::RamPhase phase) {
  switch (phase) {
    case facts::RamPhase::startup: return "at start-up";
    case facts::RamPhase::load: return "while loading";
    case facts::RamPhase::steady: return "while training";
    case facts::RamPhase::checkpoint: return "at a checkpoint";
  }
  return "";
}

std::string joined(const std::vector<std::string>& names, const Paint& paint) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : " ") + paint.outside(name);
  return text;
}

// "rank 4", "ranks 0-3": of ranks in order.
std::string ranks_text(const std::vector<std::int64_t>& ranks) {
  std::string list;
  for (std::size_t i = 0; i < ranks.size();) {
    std::size_t last = i;
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
    list += fmt::format("{}{}", list.empty() ? "" : ",", ranks[i]);
    if (last > i) list += fmt::format("-{}", ranks[last]);
    i = last + 1;
  }
  return (ranks.size() == 1 ? "rank " : "ranks ") + list;
}

void append_wrapped(Lines& lines, const std::string& text, std::size_t width) {
  const Lines more = wrapped(text, width);
  lines.insert(lines.end(), more.begin(), more.end());
}

std::string node_text(const facts::NodeLoad& load, const Paint& paint) {
  std::string text = fmt::format("node {}: ", load.node);
  if (load.ranks.empty()) {
    text += "no rank";
    if (load.memory) text += ", " + to_text(*load.memory);
  } else {
    text += ranks_text(load.ranks) + ", bound " + to_text(load.need);
    if (load.memory) text += " of " + to_text(*load.memory);
    text += fmt::format(" {}{}", when(load.need_phase), load.fits == false ? ": TOO SMALL" : "");
  }
  if (!load.nics.empty()) text += "; " + joined(load.nics, paint);
  if (!load.drives.empty()) text += "; " + joined(load.drives, paint);
  return text;
}

void add_rates(const facts::NumaPlan& feed, std::size_t width, Lines& lines) {
  if (!feed.crosses || !feed.link) return;
  append_wrapped(
      lines,
      fmt::format("{} of the data path cross from socket to socket each way, {} of {}",
                  to_text(*feed.crosses), percent(*feed.crosses / *feed.link), to_text(*feed.link)),
      width);
  if (feed.bound) return;
  lines.push_back(
      fmt::format("bound as below (machine.numa_binding): {}", to_text(*feed.crosses_bound)));
}

// Of the data path and of offloading, for one step.
void add_step(const facts::Plan& plan, std::size_t width, Lines& lines) {
  const facts::NumaPlacement& numa = plan.numa;
  if (!numa.crossing_bytes) return;
  const auto cost = [](double bytes, Seconds seconds) {
    return fmt::format("{} in {}", to_text(Bytes(static_cast<std::int64_t>(bytes))),
                       to_text(seconds));
  };
  std::string text =
      "between sockets, each way, per step: " + cost(*numa.crossing_bytes, *numa.crossing);
  if (!plan.feed.numa.bound) {
    text += ", bound " + cost(*numa.crossing_bytes_bound, *numa.crossing_bound);
  }
  append_wrapped(lines, text, width);
}

// `who` and its numactl; below it the same for threads alone, where they are known.
void add_commands(const std::string& who, const facts::RankPlace& place, std::size_t width,
                  Lines& lines) {
  append_wrapped(lines, who + ": " + place.numactl, width);
  if (!place.taskset.empty()) append_wrapped(lines, "  or " + place.taskset, width);
}

// Ranks that are bound alike, once.
void add_bindings(const facts::NumaPlacement& numa, std::size_t width, Lines& lines) {
  for (std::size_t i = 0; i < numa.ranks.size();) {
    const facts::RankPlace& first = numa.ranks[i];
    std::vector<std::int64_t> alike;
    for (; i < numa.ranks.size() && numa.ranks[i].numactl == first.numactl; ++i) {
      alike.push_back(numa.ranks[i].rank);
    }
    add_commands(ranks_text(alike), first, width, lines);
  }
}

}  // namespace

Lines numa_lines(const facts::Plan& plan, std::size_t width, const Paint& paint) {
  Lines lines;
  const facts::NumaPlacement& numa = plan.numa;
  if (numa.ranks.empty()) return lines;
  append_wrapped(lines, paint.outside(numa.note), width);
  for (const facts::NodeLoad& load : numa.nodes) {
    if (!load.ranks.empty()) append_wrapped(lines, node_text(load, paint), width);
  }
  add_step(plan, width, lines);
  add_bindings(numa, width, lines);
  return lines;
}

Lines numa_details(const facts::Plan& plan, std::size_t width, const Paint& paint) {
  Lines lines;
  const facts::NumaPlacement& numa = plan.numa;
  if (numa.ranks.empty()) return lines;
  append_wrapped(lines, paint.outside(numa.note), width);
  for (const facts::NodeLoad& load : numa.nodes) {
    append_wrapped(lines, node_text(load, paint), width);
  }
  add_rates(plan.feed.numa, width, lines);
  add_step(plan, width, lines);
  for (const facts::RankPlace& place : numa.ranks) {
    std::string who = fmt::format("rank {}", place.rank);
    if (!place.nic.empty()) {
      who += fmt::format(" ({}{})", paint.outside(place.nic), place.nic_near ? "" : ", far");
    }
    add_commands(who, place, width, lines);
  }
  for (const std::string& remark : numa.remarks) {
    append_wrapped(lines, sentence_of(remark, paint), width);
  }
  return lines;
}

}  // namespace steelyard::report
