// `steelyard probe`: what this machine, or a recorded one, is built of and what it reaches.
#include "cli/probe_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <memory>
#include <ostream>

#include "base/format.h"
#include "catalog/gpu_match.h"
#include "cli/whole_file.h"
#include "codec/codec.h"
#include "codec/probe.h"
#include "probe/gather.h"
#include "probe/gemm_rates.h"
#include "probe/gpu_copies.h"
#include "probe/hwloc_view.h"
#include "probe/machine.h"
#include "probe/measure.h"
#include "probe/topology.h"
#include "report/probe_text.h"
#include "sense/environment.h"
#include "sense/nvml.h"

namespace steelyard::cli {
namespace {

struct ProbeOptions {
  std::string root;                // of a recorded machine; empty: this one
  std::string gather;              // a folder to save its files in; empty: none
  std::string output;              // a machine file; empty: none
  std::vector<std::string> only;   // parts; empty: all
  std::vector<std::string> paths;  // folders whose storage is measured; empty: this one
  std::string images;              // a folder of images to decode; empty: synthetic ones
  bool quick = false;
  bool json = false;
  bool ascii = false;

  [[nodiscard]] bool wants(std::string_view part) const {
    return only.empty() || std::find(only.begin(), only.end(), part) != only.end();
  }
};

Result<sense::Tree> tree_of(const std::string& root) {
  if (root.empty()) return sense::Tree();
  std::error_code failed;
  if (std::filesystem::is_directory(std::filesystem::path(root) / "proc", failed)) {
    return sense::Tree(root);
  }
  return fail({.code = ErrorCode::unreadable,
               .subject = "--root",
               .found = "\"" + root + "\", which holds no folder proc",
               .accepted = "a folder that `steelyard probe --gather FOLDER` has written"});
}

void check_with_hwloc(facts::Topology& topology) {
  const auto view = probe::hwloc_view();
  if (!view) return;
  for (std::string& sentence : probe::differences(*view, topology)) {
    topology.warnings.push_back(std::move(sentence));
  }
}

Result<ExitStatus> run_gather(const Session& session, const sense::Tree& tree,
                              const ProbeOptions& options) {
  STEELYARD_TRY(count, probe::gather(tree, options.gather));
  session.terminal.out << fmt::format("{}: {} files and {} links, {}\n", options.gather,
                                      count.files, count.links, to_text(count.bytes));
  return ExitStatus::success;
}

void measure_gpus(const ProbeOptions& options, facts::Topology& topology) {
  probe::CopyOptions copies;
  if (topology.memory.available) copies.host_memory_free = *topology.memory.available;
  if (options.quick) {
    copies.buffer = Bytes(std::int64_t{64} << 20);
    copies.runs = 3;
  }
  probe::measure_copies(topology, copies);
  probe::GemmOptions gemms;
  if (options.quick) {
    gemms.sizes = {4096};
    gemms.run = Seconds(0.01);
    gemms.runs = 3;
  }
  probe::measure_gemms(topology, gemms);
}

// Whoever names no folder did not ask for one that cannot be written to: said, and left out.
bool storage_can_be_measured(const ProbeOptions& options, facts::Topology& topology) {
  if (!options.paths.empty() || ::access(".", W_OK) == 0) return true;
  topology.warnings.emplace_back(
      "storage was not measured: the current folder cannot be written to (--path names another)");
  return false;
}

Result<std::optional<facts::Measurements>> measured(const Session& session,
                                                    const ProbeOptions& options,
                                                    facts::Topology& topology) {
  probe::MeasureOptions wanted;
  wanted.memory = options.wants("memory");
  wanted.host = options.wants("memory");
  wanted.images = options.wants("decode");
  wanted.storage = options.wants("storage") && storage_can_be_measured(options, topology);
  if (!wanted.memory && !wanted.images && !wanted.storage) return std::nullopt;
  constexpr Seconds kQuick = Seconds(7);  // `--quick` ends within ten seconds, GPUs included
  if (options.quick) wanted.budget = kQuick;
  wanted.storage_paths.assign(options.paths.begin(), options.paths.end());
  wanted.images_path = options.images;
  if (::isatty(STDERR_FILENO) != 0) {
    wanted.progress = [&session](const std::string& part) {
      session.terminal.err << "measuring " << part << "\n" << std::flush;
    };
  }
  STEELYARD_TRY(measurements, probe::measure(wanted));
  return std::optional(std::move(measurements));
}

std::string today() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm local{};
  localtime_r(&now, &local);
  return fmt::format("{:04}-{:02}-{:02}", local.tm_year + 1900, local.tm_mon + 1, local.tm_mday);
}

Result<facts::Machine> machine_of(const Session& session, const facts::Probe& found) {
  STEELYARD_TRY(catalog, open_catalog(session));
  std::optional<facts::Gpu> known;
  if (const facts::GpuDevice* gpu = probe::first_gpu(found.topology)) {
    STEELYARD_TRY(matched, catalog::gpu_of_driver(catalog, gpu->name, gpu->memory.value));
    known = std::move(matched);
  }
  STEELYARD_TRY(no_gpu, catalog.gpu("cpu"));
  facts::Machine machine = probe::machine_of(found.topology, known, no_gpu, today());
  if (found.measurements) {
    probe::add_rates(machine, *found.measurements);
    probe::add_storage(machine, *found.measurements, found.topology.mounts);
  }
  return machine;
}

Result<facts::Probe> probed(const Session& session, const sense::Tree& tree,
                            const ProbeOptions& options) {
  facts::Probe found;
  found.topology = probe::topology(tree, sense::environment_of(tree));
  if (tree.live()) {
    check_with_hwloc(found.topology);
    sense::join(found.topology, sense::ask_nvml());
    if (options.wants("gpu")) measure_gpus(options, found.topology);
    STEELYARD_TRY(measurements, measured(session, options, found.topology));
    found.measurements = std::move(measurements);
  }
  probe::warn(found.topology);
  STEELYARD_TRY(machine, machine_of(session, found));
  found.machine = std::move(machine);
  return found;
}

Result<ExitStatus> run_probe(const Session& session, const ProbeOptions& options) {
  STEELYARD_TRY(tree, tree_of(options.root));
  if (!options.gather.empty()) return run_gather(session, tree, options);
  STEELYARD_TRY(found, probed(session, tree, options));
  if (!options.output.empty()) {
    const std::string file = codec::to_json(codec::to_value(found.machine)) + "\n";
    STEELYARD_CHECK(write_whole_file(options.output, file, "--output"));
  }
  if (options.json) {
    session.terminal.out << codec::to_json(codec::to_value(found)) << "\n";
    return ExitStatus::success;
  }
  const report::Style style{.columns = session.terminal.columns,
                            .colour = session.terminal.colour,
                            .ascii = options.ascii};
  session.terminal.out << report::topology_text(found.topology, style);
  if (found.measurements) {
    session.terminal.out << "\n" << report::measurements_text(*found.measurements, style);
  }
  return ExitStatus::success;
}

void add_probe_options(CLI::App& command, ProbeOptions& options) {
  command
      .add_option("-o,--output", options.output,
                  "Write the machine as a file that `plan --set machine.name=FILE` reads")
      ->type_name("FILE");
  command.add_flag("--quick", options.quick, "Within ten seconds instead of a minute");
  command.add_option("--only", options.only, "Only these parts; topology alone measures nothing")
      ->type_name("topology|memory|decode|storage|gpu")
      ->delimiter(',');
  command
      .add_option("--path", options.paths, "Folders whose storage is measured; this one otherwise")
      ->type_name("FOLDER");
  command
      .add_option("--images", options.images,
                  "A folder of JPEG and PNG files to decode instead of synthetic images")
      ->type_name("FOLDER");
  command
      .add_option("--root", options.root,
                  "Look at a recorded machine: a folder with the files of its /proc and /sys")
      ->type_name("FOLDER");
  command
      .add_option("--gather", options.gather,
                  "Save the files that the probe reads in a new folder, and do nothing else")
      ->type_name("FOLDER");
  command.add_flag("--json", options.json, "As JSON (steelyard schema probe)");
  command.add_flag("--ascii", options.ascii, "Plain ASCII");
}

}  // namespace

void add_probe(CLI::App& tree, Session& session) {
  CLI::App& command =
      add_command(tree, "probe",
                  "Say what this machine is built of, what a process may use and what it reaches",
                  {"steelyard probe", "steelyard probe -o machine.json --path /data",
                   "steelyard plan job.toml --set machine.name=machine.json",
                   "steelyard probe --quick --only memory,decode --json",
                   "steelyard probe --gather my-machine && tar czf my-machine.tar.gz my-machine",
                   "steelyard probe --root my-machine"});
  const auto options = std::make_shared<ProbeOptions>();
  add_probe_options(command, *options);
  add_catalog_option(command, session);
  command.callback([&session, options] {
    session.chosen = [&session, options] { return run_probe(session, *options); };
  });
}

}  // namespace steelyard::cli
