// `steelyard search`: every legal layout on every machine asked for.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <memory>
#include <ostream>

#include "base/format.h"
#include "base/suggest.h"
#include "base/text.h"
#include "cli/job_options.h"
#include "cli/mpi_crew.h"
#include "cli/what_if.h"
#include "codec/codec.h"
#include "report/report.h"
#include "search/space.h"

namespace steelyard::cli {
namespace {

struct SearchOptions {
  JobWords words;
  std::vector<std::string> machines;
  std::string nodes;
  std::string goal = "step";
  std::vector<std::string> free, within;
  bool json = false;
  bool ascii = false;
  bool all = false;
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
Result<std::vector<std::string>> free_keys(const std::vector<std::string>& words) {
  const std::vector<std::string>& known = search::searchable_keys();
  std::vector<std::string> keys;
  for (const std::string& word : words) {
    const std::vector<std::string> named = search::keys_named(word);
    keys.insert(keys.end(), named.begin(), named.end());
    if (!named.empty()) continue;
    const auto near = nearest_name(word, known);
    return fail({.code = ErrorCode::unknown_name,
                 .subject = "--free",
                 .found = word,
                 .accepted = listed(known),
                 .hint = near ? "did you mean \"" + *near + "\"?" : std::string()});
  }
  return keys;
}

// "ram_gib=512": at most so much.
Result<search::Within> within_of(const std::vector<std::string>& words) {
  search::Within within;
  std::optional<double> most_gpus;
  const std::pair<std::string_view, std::optional<double>*> known[] = {
      {"step", &within.step},
      {"price", &within.price},
      {"ram_gib", &within.ram_gib},
      {"vram_gib", &within.vram_gib},
      {"gpus", &most_gpus}};
  for (const std::string& word : words) {
    const std::size_t equals = word.find('=');
    std::optional<double>* limit = nullptr;
    for (const auto& [name, member] : known) {
      if (word.substr(0, equals) == name) limit = member;
    }
    double value = 0.0;
    const char* begin = equals == std::string::npos ? nullptr : word.data() + equals + 1;
    const char* end = word.data() + word.size();
    const bool is_number = begin != nullptr && begin != end &&
                           std::from_chars(begin, end, value).ptr == end && value > 0.0;
    if (limit == nullptr || !is_number) {
      return fail({.code = ErrorCode::bad_input,
                   .subject = "--within",
                   .found = word,
                   .accepted = "step, price, ram_gib, vram_gib or gpus and the most of it, as "
                               "ram_gib=512"});
    }
    *limit = value;
  }
  if (most_gpus) within.gpus = static_cast<std::int64_t>(*most_gpus);
  return within;
}

std::string shardings_word(const Base& base) {
  const auto& words = base.request.constants.framework.operators;
  const auto word = words.find("shardings");
  return word == words.end() ? std::string() : word->second;
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
  Progress(std::ostream& err, bool speaks)
      : err_(err), shown_(speaks && isatty(STDERR_FILENO) == 1) {}
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

std::string counts_text(const search::Counts& counts) {
  return fmt::format("\n{} layout{} planned, {} ruled out by bounds, {} refused\n",
                     grouped(counts.planned), counts.planned == 1 ? "" : "s",
                     grouped(counts.ruled_out), grouped(counts.refused));
}

Result<ExitStatus> search_and_print(const Session& session, const SearchOptions& options,
                                    search::Crew* crew) {
  STEELYARD_TRY(free, free_keys(options.free));
  STEELYARD_TRY(within, within_of(options.within));
  STEELYARD_TRY(base, base_of(session, options.words));
  STEELYARD_TRY(places, places_of(base, options));
  const bool prints = crew == nullptr || crew->rank() == 0;
  const LayoutPlanner planner = layout_planner_of(base);
  const Interrupts interrupts;
  Progress progress(session.terminal.err, prints);
  search::Counts counts;
  const search::SearchQuestion question{
      // What another tool's arguments say is fixed too.
      .job = base.read.job.import.megatron ? &base.request.job : &base.read.job,
      .planned = &base.planned,
      .places = std::move(places),
      .free = free,
      .shardings = search::shardings_of(shardings_word(base)),
      .within = within,
      .goal = *facts::from_name<facts::SearchGoal>(options.goal),
      .bounds = options.all ? std::function<search::Bounds(const facts::Job&)>() : bounds_of(base),
      .siblings = planner.siblings,
      .counts = &counts,
      .crew = crew,
      .progress = [&](std::int64_t done, std::int64_t all) { return progress(done, all); }};
  const facts::SearchResult result = search::search(question, planner.one);
  progress.clear();
  if (prints && options.json) {
    session.terminal.out << codec::to_json(codec::to_value(result)) << "\n";
  } else if (prints) {
    session.terminal.out << report::search_text(
        result, {.columns = session.terminal.columns, .ascii = options.ascii});
    session.terminal.out << counts_text(counts);
  }
  const bool any = std::any_of(result.places.begin(), result.places.end(),
                               [](const auto& place) { return !place.found.empty(); });
  if (any) return ExitStatus::success;
  return result.interrupted ? ExitStatus::interrupted : ExitStatus::does_not_fit;
}

// Of several processes the first one speaks for all: what it ends with is the status of all, and
// mpirun would stop it amid its words if another one ended with an error before.
Result<ExitStatus> run_search(const Session& session, const SearchOptions& options) {
  const std::unique_ptr<search::Crew> crew = crew_of_this_process();
  Result<ExitStatus> status = search_and_print(session, options, crew.get());
  if (crew && crew->rank() > 0) return ExitStatus::success;
  return status;
}

}  // namespace

void add_search(CLI::App& tree, Session& session) {
  CLI::App& command = add_command(
      tree, "search", "The best layouts of a job: on its machine or on several",
      {"steelyard search --model llama-3.1-8b --machine dgx-h100",
       "steelyard search job.toml --nodes 1..16 --goal cost",
       "steelyard search job.toml --machines 'dgx-*' --nodes 4 --free train.micro_batch",
       "steelyard search job.toml --free precision --within ram_gib=512 step=20",
       "mpirun -n 64 steelyard search job.toml --nodes 1..512", "",
       "Keys that the job gives are fixed, the others are free: tensor, pipeline, context and",
       "(where the model has experts) expert ranks, sequence_parallel, sharding, virtual_stages,",
       "micro_batch, recompute, offload and data.workers; precision where --free names it. The",
       "batch of a step is kept. Exit status: 0 something fits, 3 nothing does or nothing within "
       "what",
       "--within asks for, 130 stopped (Ctrl-C) before anything was found."});
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
  command
      .add_option("--free", options->free,
                  "Keys that are free although the job gives them, or usually fixed")
      ->type_name("KEY");
  command
      .add_option(
          "--within", options->within,
          "What the answer keeps to: step (s), price (per hour, in the machine's own currency), "
          "ram_gib (of a node), "
          "vram_gib, gpus")
      ->type_name("NAME=MOST");
  command.add_flag("--plan-all", options->all,
                   "Plan every layout, also those that bounds rule out (the answer is the same)");
  command.add_flag("--json", options->json, "As JSON (steelyard schema search)");
  command.add_flag("--ascii", options->ascii, "Plain ASCII instead of lines");
  add_catalog_option(command, session);
  command.callback([&session, options] {
    session.chosen = [&session, options] { return run_search(session, *options); };
  });
}

}  // namespace steelyard::cli
