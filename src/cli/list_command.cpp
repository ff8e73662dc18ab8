#include <array>
#include <memory>
#include <ostream>
#include <utility>

#include "base/text_table.h"
#include "cli/command.h"
#include "codec/codec.h"

namespace steelyard::cli {
namespace {

struct ListOptions {
  std::string kind;
  std::string match;
  bool json = false;
};

catalog::Kind kind_of(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, catalog::Kind>, 4> kKinds = {
      {{"gpus", catalog::Kind::gpus},
       {"machines", catalog::Kind::machines},
       {"models", catalog::Kind::models},
       {"datasets", catalog::Kind::datasets}}};
  for (const auto& [word, kind] : kKinds) {
    if (word == name) return kind;
  }
  throw std::logic_error("a kind that the option's closed list lets through is not known");
}

std::string as_json(const std::vector<catalog::Entry>& entries) {
  facts::Array items;
  for (const catalog::Entry& entry : entries) {
    items.emplace_back(facts::Object{
        {"id", entry.id}, {"summary", entry.summary}, {"confidence", entry.confidence}});
  }
  return codec::to_json(facts::Value(std::move(items))) + "\n";
}

std::string as_text(const std::vector<catalog::Entry>& entries, int columns) {
  std::size_t widest_id = 0;
  for (const catalog::Entry& entry : entries) widest_id = std::max(widest_id, entry.id.size());
  constexpr std::size_t kConfidence = 10;  // the last column with its gap
  constexpr std::size_t kLeastSummary = 20;
  const std::size_t room = static_cast<std::size_t>(columns);
  const std::size_t taken = widest_id + 2 + kConfidence;
  const std::size_t summary = room > taken + kLeastSummary ? room - taken : kLeastSummary;
  TextTable table({{"id"}, {"what it is"}, {"confidence"}});
  for (const catalog::Entry& entry : entries) {
    table.add({printable(entry.id), shortened(printable(entry.summary), summary),
               printable(entry.confidence)});
  }
  return table.text();
}

Result<ExitStatus> run_list(const Session& session, const ListOptions& options) {
  STEELYARD_TRY(catalog, open_catalog(session));
  STEELYARD_TRY(entries, catalog.list(kind_of(options.kind), options.match));
  if (options.json) {
    session.terminal.out << as_json(entries);
  } else if (entries.empty()) {
    session.terminal.out << "No " << options.kind << " match \"" << printable(options.match)
                         << "\". steelyard list " << options.kind << " shows all.\n";
  } else {
    session.terminal.out << as_text(entries, session.terminal.columns);
  }
  return ExitStatus::success;
}

}  // namespace

void add_list(CLI::App& tree, Session& session) {
  CLI::App& command =
      add_command(tree, "list", "List what the catalogue knows",
                  {"steelyard list gpus", "steelyard list machines --match h100",
                   "steelyard list models --match llama", "steelyard list datasets --json"});
  const auto options = std::make_shared<ListOptions>();
  command.add_option("kind", options->kind, "What to list")
      ->type_name("gpus|machines|models|datasets")
      ->required();
  command.add_option("--match", options->match, "Only entries whose id or summary has this text")
      ->type_name("TEXT");
  command.add_flag("--json", options->json, "As JSON");
  add_catalog_option(command, session);
  command.callback([&session, options] {
    session.chosen = [&session, options] { return run_list(session, *options); };
  });
}

}  // namespace steelyard::cli
