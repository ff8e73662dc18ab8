#include <memory>
#include <ostream>

#include "cli/command.h"
#include "codec/codec.h"
#include "codec/probe.h"
#include "codec/share.h"
#include "codec/storage_run.h"

namespace steelyard::cli {
namespace {

codec::SchemaOf schema_named(std::string_view name) {
  if (name == "job") return codec::SchemaOf::job;
  if (name == "plan") return codec::SchemaOf::plan;
  if (name == "machine") return codec::SchemaOf::machine;
  if (name == "model") return codec::SchemaOf::model;
  if (name == "why") return codec::SchemaOf::why;
  if (name == "comparison") return codec::SchemaOf::comparison;
  if (name == "limits") return codec::SchemaOf::limits;
  if (name == "search") return codec::SchemaOf::search;
  if (name == "rehearsal") return codec::SchemaOf::rehearsal;
  if (name == "why-pace") return codec::SchemaOf::why_pace;
  return codec::SchemaOf::cases;
}

facts::Value schema_of(const std::string& name) {
  if (name == "ratio") return codec::ratio_schema();
  if (name == "share") return codec::share_schema();
  if (name == "probe") return codec::probe_schema();
  if (name == "generated") return codec::generated_schema();
  if (name == "checkpoint-run") return codec::checkpoint_run_schema();
  return codec::schema(schema_named(name));
}

}  // namespace

void add_schema(CLI::App& tree, Session& session) {
  CLI::App& command =
      add_command(tree, "schema", "Print the JSON Schema of a file that Steelyard reads or writes",
                  {"steelyard schema job > job.schema.json", "steelyard schema plan"});
  const auto what = std::make_shared<std::string>();
  command.add_option("what", *what, "Which file")
      ->type_name(
          "job|plan|why|why-pace|comparison|limits|search|share|ratio|rehearsal|generated|"
          "checkpoint-run|model|machine|probe|cases")
      ->required();
  command.callback([&session, what] {
    session.chosen = [&session, what]() -> Result<ExitStatus> {
      session.terminal.out << codec::to_json(schema_of(*what)) << "\n";
      return ExitStatus::success;
    };
  });
}

}  // namespace steelyard::cli
