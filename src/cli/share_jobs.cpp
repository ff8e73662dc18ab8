#include "cli/share_jobs.h"

#include <unistd.h>

#include <charconv>
#include <filesystem>
#include <fstream>
#include <memory>

#include "base/text.h"
#include "plan/figures.h"

namespace steelyard::cli {
namespace {

std::optional<std::int64_t> whole(const std::string& digits, std::int64_t most) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  const bool all = end == digits.data() + digits.size();
  if (digits.empty() || error != std::errc() || !all || value < 1 || value > most) return {};
  return value;
}

}  // namespace

Result<share::Planner> planner_for(const ReadJob& read, const catalog::Catalog& catalog) {
  ReadJob elsewhere = read;
  // Any machine will do to look up the rest.
  elsewhere.job.machine = {};
  elsewhere.job.machine.gpu = "cpu";
  Result<plan::Request> request = request_of(elsewhere, catalog);
  if (!request) return fail(placed(request.error(), read));
  request->advice = false;
  request->alternatives = {};
  auto base = std::make_shared<const plan::Request>(std::move(*request));
  return [base](const facts::Job& job, const facts::Machine& machine,
                share::Depth depth) -> Result<facts::Plan> {
    plan::Request changed = *base;
    facts::Job full = base->job;  // what an import brought
    full.machine = job.machine;
    full.data = job.data;
    changed.job = std::move(full);
    changed.machine = machine;
    changed.vram = depth == share::Depth::full;
    return plan::plan(changed);
  };
}

Result<CountedJob> counted_job(const std::string& text) {
  constexpr std::int64_t kMostCopies = 64, kMostGpus = 1024;
  CountedJob counted{.file = text};
  std::error_code failed;
  if (std::filesystem::is_regular_file(text, failed)) return counted;
  const auto refused = [&](std::string found, std::string accepted) {
    return fail({.code = ErrorCode::bad_input,
                 .subject = text,
                 .found = std::move(found),
                 .accepted = std::move(accepted),
                 .hint = "3xjob.toml:2 is three copies of job.toml on 2 GPUs each"});
  };
  const std::size_t digits = text.find_first_not_of("0123456789");
  if (digits != std::string::npos && digits > 0 && text[digits] == 'x') {
    const auto copies = whole(text.substr(0, digits), kMostCopies);
    if (!copies) return refused(text.substr(0, digits) + " copies", "1 to 64 copies");
    counted.copies = *copies;
    counted.file = text.substr(digits + 1);
    counted.file.erase(0, counted.file.find_first_not_of(' '));
  }
  const std::size_t colon = counted.file.rfind(':');
  if (colon != std::string::npos && !std::filesystem::is_regular_file(counted.file, failed)) {
    counted.gpus = whole(counted.file.substr(colon + 1), kMostGpus);
    if (!counted.gpus) {
      return refused("\"" + counted.file.substr(colon + 1) + "\" behind the colon",
                     "a number of GPUs from 1 to 1024");
    }
    counted.file.erase(colon);
  }
  return counted;
}

bool matches_pattern(std::string_view pattern, std::string_view id) {
  const std::size_t star = pattern.find('*');
  if (star == std::string_view::npos) return pattern == id;
  if (!id.starts_with(pattern.substr(0, star))) return false;
  pattern.remove_prefix(star + 1);
  for (std::size_t from = star; from <= id.size(); ++from) {
    if (matches_pattern(pattern, id.substr(from))) return true;
  }
  return false;
}

Result<void> write_file(const std::string& option, const std::string& file,
                        const std::string& text) {
  const std::string fresh = file + "." + std::to_string(::getpid()) + ".part";
  std::error_code failed;
  {
    std::ofstream out(fresh, std::ios::binary);
    out << text;
    out.flush();
    if (out) std::filesystem::rename(fresh, file, failed);
    if (out && !failed) return {};
  }
  std::filesystem::remove(fresh, failed);
  return fail({.code = ErrorCode::unreadable,
               .subject = option,
               .found = "\"" + printable(file) + "\", which cannot be written",
               .accepted = "a file in a folder that exists and may be written to"});
}

}  // namespace steelyard::cli
