// `steelyard search`: every legal layout on every machine asked for.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <memory>
#include <ostream>

#include "base/format.h"
#include "base/suggest.h"
#include "base/text.h"
#include "cli/job_options.h"
#include "cli/what_if.h"
#include "codec/codec.h"
#include "report/report.h"

namespace steelyard::cli {
namespace {

struct SearchOptions {
  JobWords words;
  std::vector<std::string> machines;
  std::string nodes;
  std::string goal = "step";
  std::vector<std::string> free;
  bool json = false;
  bool ascii = false;
};

volatile std::sig_atomic_t interrupted = 0;

// Ctrl-C ends the search, not the program: what was found is printed.
class Interrupts {
 public:
  Interrupts() : before_(std::signal(SIGINT, [](int) { interrupted = 1; })) { interrupted = 0; }
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;
  ~Interrupts() { std::signal(SIGINT, before_); }

 private:
  void (*before_)(int);
};

// "4", or "1..64": one, the powers of two between, and the last.
Result<std::vector<std::int64_t>> nodes_of(const std::string& text) {
  const auto number = [](const std::string& part) -> std::optional<std::int64_t> {
    const bool digits = !part.empty() && part.size() < 7 &&
                        part.find_first_not_of("0123456789") == std::string::npos;
    if (!digits || std::stoll(part) < 1) return std::nullopt;
    return std::stoll(part);
  };
  const std::size_t dots = text.find("..");
  const auto first = number(text.substr(0, dots));
  const auto last = dots == std::string::npos ? first : number(text.substr(dots + 2));
  if (!first || !last || *last < *first) {
    return fail({.code = ErrorCode::bad_input,
                 .subject = "--nodes",
                 .found = text,
                 .accepted = "a number of nodes, or a range as 1..64"});
  }
  std::vector<std::int64_t> nodes;
  for (std::int64_t many = *first; many < *last; many *= 2) nodes.push_back(many);
  nodes.push_back(*last);
  return nodes;
}

// "dgx-*": all of the catalogue whose id has these parts in this order.
bool matches(std::string_view pattern, std::string_view id) {
  const std::size_t star = pattern.find('*');
  if (star == std::string_view::npos) return pattern == id;
  if (!id.starts_with(pattern.substr(0, star))) return false;
  pattern.remove_prefix(star + 1);
  for (std::size_t from = star; from <= id.size(); ++from) {
    if (matches(pattern, id.substr(from))) return true;
  }
  return false;
}

Result<std::vector<std::string>> machines_of(const Base& base, const SearchOptions& options) {
  std::vector<std::string> names;
  for (const std::string& pattern : options.machines) {
    if (pattern.find('*') == std::string::npos) {
      names.push_back(pattern);
      continue;
    }
    const std::size_t before = names.size();
    STEELYARD_TRY(entries, base.catalog.list(catalog::Kind::machines));
    for (const catalog::Entry& entry : entries) {
      if (matches(pattern, entry.id)) names.push_back(entry.id);
    }
    if (names.size() == before) {
      return fail({.code = ErrorCode::unknown_name,
                   .subject = "--machines",
                   .found = pattern,
                   .accepted = "a pattern that some machine of the catalogue matches",
                   .hint = "`steelyard list machines` shows them all"});
    }
  }
  if (names.empty()) {
    const facts::MachineKeys& machine = base.request.job.machine;
    names.push_back(machine.name ? *machine.name : machine.gpu.value_or(""));
  }
  return names;
}

// A key that no search can free would be ignored in silence.
Result<void> check_free(const std::vector<std::string>& free) {
  const std::vector<std::string>& known = search::searchable_keys();
  for (const std::string& key : free) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const auto near = nearest_name(key, known);
    return fail({.code = ErrorCode::unknown_name,
                 .subject = "--free",
                 .found = key,
                 .accepted = listed(known),
                 .hint = near ? "did you mean \"" + *near + "\"?" : std::string()});
  }
  return {};
}

Result<std::vector<search::Place>> places_of(const Base& base, const SearchOptions& options) {
  STEELYARD_TRY(names, machines_of(base, options));
  std::vector<std::int64_t> nodes = {base.planned.job.machine.nodes};
  if (!options.nodes.empty()) {
    STEELYARD_TRY(asked, nodes_of(options.nodes));
    nodes = asked;
  }
  std::vector<search::Place> places;
  for (const std::string& name : names) {
    STEELYARD_TRY(machine, machine_named(base, name));
    for (const std::int64_t many : nodes) places.push_back({name, machine, many});
  }
  return places;
}

// A line that is written over, on a terminal alone.
class Progress {
 public:
  explicit Progress(std::ostream& err) : err_(err), shown_(isatty(STDERR_FILENO) == 1) {}
  bool operator()(std::int64_t done, std::int64_t all) {
    const auto now = std::chrono::steady_clock::now();
    if (shown_ && now - last_ > std::chrono::milliseconds(200)) {
      last_ = now;
      const std::chrono::duration<double> spent = now - begun_;
      err_ << fmt::format("\r{} of {} layouts, {} per second ", grouped(done), grouped(all),
                          compact(static_cast<double>(done) / std::max(spent.count(), 1e-3)))
           << std::flush;
      wrote_ = true;
    }
    return interrupted == 0;
  }
  void clear() {
    if (wrote_) err_ << "\r\033[K" << std::flush;
  }

 private:
  std::ostream& err_;
  bool shown_, wrote_ = false;
  std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now(), last_ = begun_;
};

Result<ExitStatus> run_search(const Session& session, const SearchOptions& options) {
  STEELYARD_CHECK(check_free(options.free));
  STEELYARD_TRY(base, base_of(session, options.words));
  STEELYARD_TRY(places, places_of(base, options));
  const Interrupts interrupts;
  Progress progress(session.terminal.err);
  const search::SearchQuestion question{
      .job = &base.read.job,
      .planned = &base.planned,
      .places = std::move(places),
      .free = options.free,
      .goal = *facts::from_name<facts::SearchGoal>(options.goal),
      .progress = [&](std::int64_t done, std::int64_t all) { return progress(done, all); }};
  const facts::SearchResult result = search::search(question, layout_planner_of(base));
  progress.clear();
  if (options.json) {
    session.terminal.out << codec::to_json(codec::to_value(result)) << "\n";
  } else {
    session.terminal.out << report::search_text(
        result, {.columns = session.terminal.columns, .ascii = options.ascii});
  }
  const bool any = std::any_of(result.places.begin(), result.places.end(),
                               [](const auto& place) { return !place.found.empty(); });
  return any ? ExitStatus::success : ExitStatus::does_not_fit;
}

}  // namespace

void add_search(CLI::App& tree, Session& session) {
  CLI::App& command = add_command(
      tree, "search", "The best layouts of a job: on its machine or on several",
      {"steelyard search --model llama-3.1-8b --machine dgx-h100",
       "steelyard search job.toml --nodes 1..16 --goal cost",
       "steelyard search job.toml --machines 'dgx-*' --nodes 4 --free train.micro_batch", "",
       "Keys that the job gives are fixed, the others are free: tensor, pipeline and context "
       "ranks,",
       "sequence_parallel, sharding, virtual_stages, micro_batch, recompute. The batch of a step "
       "is",
       "kept. Exit status: 0 something fits, 3 nothing does."});
  const auto options = std::make_shared<SearchOptions>();
  add_job_options(command, options->words, false);
  command
      .add_option("--machines", options->machines,
                  "Machines of the catalogue ('dgx-*' for several), machine files, or GPUs")
      ->type_name("MACHINE");
  command.add_option("--nodes", options->nodes, "Nodes to try: 4, or 1..64 (powers of two)")
      ->type_name("N..M");
  command.add_option("--goal", options->goal, "What the answer is ordered by")
      ->type_name("step|cost|gpus|energy");
  command.add_option("--free", options->free, "Keys that are free although the job gives them")
      ->type_name("KEY");
  command.add_flag("--json", options->json, "As JSON (steelyard schema search)");
  command.add_flag("--ascii", options->ascii, "Plain ASCII instead of lines");
  add_catalog_option(command, session);
  command.callback([&session, options] {
    session.chosen = [&session, options] { return run_search(session, *options); };
  });
}

}  // namespace steelyard::cli
