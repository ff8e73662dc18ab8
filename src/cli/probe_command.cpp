// `steelyard probe`: what this machine, or a recorded one, is built of and what it reaches.
#include <fmt/format.h>

#include <memory>
#include <ostream>

#include "base/format.h"
#include "cli/probe_command.h"
#include "codec/codec.h"
#include "codec/probe.h"
#include "probe/gather.h"
#include "probe/hwloc_view.h"
#include "probe/topology.h"
#include "report/probe_text.h"
#include "sense/environment.h"

namespace steelyard::cli {
namespace {

struct ProbeOptions {
  std::string root;    // of a recorded machine; empty: this one
  std::string gather;  // a folder to save its files in; empty: none
  bool json = false;
  bool ascii = false;
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

Result<ExitStatus> run_probe(const Session& session, const ProbeOptions& options) {
  STEELYARD_TRY(tree, tree_of(options.root));
  if (!options.gather.empty()) return run_gather(session, tree, options);
  facts::Probe found;
  found.topology = probe::topology(tree, sense::environment_of(tree));
  if (tree.live()) check_with_hwloc(found.topology);
  probe::warn(found.topology);
  if (options.json) {
    session.terminal.out << codec::to_json(codec::to_value(found)) << "\n";
  } else {
    session.terminal.out << report::topology_text(found.topology,
                                                  {.columns = session.terminal.columns,
                                                   .colour = session.terminal.colour,
                                                   .ascii = options.ascii});
  }
  return ExitStatus::success;
}

}  // namespace

void add_probe(CLI::App& tree, Session& session) {
  CLI::App& command = add_command(
      tree, "probe", "Say what this machine is built of and what a process may use of it",
      {"steelyard probe", "steelyard probe --json > probe.json",
       "steelyard probe --gather my-machine && tar czf my-machine.tar.gz my-machine",
       "steelyard probe --root my-machine"});
  const auto options = std::make_shared<ProbeOptions>();
  command
      .add_option("--root", options->root,
                  "Look at a recorded machine: a folder with the files of its /proc and /sys")
      ->type_name("FOLDER");
  command
      .add_option("--gather", options->gather,
                  "Save the files that the probe reads in a new folder, and do nothing else")
      ->type_name("FOLDER");
  command.add_flag("--json", options->json, "As JSON (steelyard schema probe)");
  command.add_flag("--ascii", options->ascii, "Plain ASCII");
  command.callback([&session, options] {
    session.chosen = [&session, options] { return run_probe(session, *options); };
  });
}

}  // namespace steelyard::cli
