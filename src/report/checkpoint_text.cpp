#include "report/checkpoint_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "base/format.h"

namespace steelyard::report {
namespace {

// The mean of the rounds, and the slowest and fastest where there are several.
std::string rates(const char* name, Bytes bytes, std::span<const Seconds> rounds) {
  Seconds sum;
  for (const Seconds seconds : rounds) sum += seconds;
  const auto [least, most] = std::minmax_element(rounds.begin(), rounds.end());
  const Seconds mean = sum / static_cast<double>(rounds.size());
  std::string line =
      fmt::format("  {:<6} {:>10}  {:>8}", name, to_text(bytes / mean), to_text(mean));
  if (rounds.size() > 1) {
    line += fmt::format("  ({} to {} in {} rounds)", to_text(bytes / *most),
                        to_text(bytes / *least), rounds.size());
  }
  return line;
}

}  // namespace

std::string checkpoint_text(const facts::CheckpointRun& run) {
  std::string text = fmt::format("Checkpoint of {}: {} by {} ranks, {} at a time\n", run.workload,
                                 to_text(run.bytes), run.ranks, run.threads);
  if (run.writes.empty() || run.reads.empty()) return text;
  const Seconds sync = *std::max_element(run.syncs.begin(), run.syncs.end());
  text += rates("write", run.bytes, run.writes);
  text += fmt::format("  fsync included, at most {} of one file\n", to_text(sync));
  text += rates("read", run.bytes, run.reads) + "\n";
  text += fmt::format("  memory of the rehearsal {}\n", to_text(run.memory));
  for (const std::string& remark : run.remarks) text += "  Note: " + remark + ".\n";
  return text;
}

}  // namespace steelyard::report
