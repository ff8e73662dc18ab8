// A job from its file or from a tree of values, through the table of fields in job_fields.h.
#include "codec/codec.h"
#include "codec/document.h"
#include "codec/job_fields.h"
#include "codec/model_tables.h"
#include "codec/reader.h"
#include "codec/settings.h"

namespace steelyard::codec {
namespace {

Result<void> check_is_table(const facts::Value& value, const std::string& name) {
  if (value.as_object() != nullptr) return {};
  Error error = wrong(value, "a table of job keys");
  error.subject = "job";
  error.file = name;
  return fail(std::move(error));
}

// A model comes from [model] or from what another tool has; without either there is no job.
Result<void> check_has_model(const facts::Job& job, const std::string& name) {
  const auto& from = job.import;
  const bool imports = from.megatron || from.deepspeed || from.accelerate || from.torchtitan;
  if (imports || !std::holds_alternative<std::monostate>(job.model.config)) return {};
  return fail({.code = ErrorCode::missing_value,
               .subject = "model.config",
               .found = "no such key",
               .accepted = "a catalogue id, a path to a model's configuration, or [import]",
               .hint = "`steelyard list models` prints the catalogue",
               .file = name,
               .line = {}});
}

// `name` appears in messages; `title` is the job's name when the job does not say one.
Result<facts::Job> read(facts::Value value, Lines* lines, const std::string& name,
                        std::string title, std::span<const std::string> settings) {
  STEELYARD_CHECK(check_is_table(value, name));
  STEELYARD_CHECK(join_models(value, lines, name));
  std::set<std::string, std::less<>> given;
  STEELYARD_CHECK(apply_settings(value, settings, given));

  facts::Job job;
  job.name = std::move(title);
  const std::vector<std::string> keys = job_keys();
  Reading reading{.file = name,
                  .lines = lines,
                  .settings = &given,
                  .origins = &job.origins,
                  .all_keys = &keys,
                  .error = {}};
  Reader reader(reading, value.as_object(), "");
  job_fields(reader, job);
  reader.finish();
  STEELYARD_CHECK(reading.outcome());
  STEELYARD_CHECK(check_has_model(job, name));
  return job;
}

}  // namespace

Result<facts::Job> read_job(const std::filesystem::path& file,
                            std::span<const std::string> settings) {
  STEELYARD_TRY(document, read_document(file));
  return read(std::move(document.value), &document.lines, file.string(), file.stem().string(),
              settings);
}

Result<facts::Job> job_from(const facts::Value& value, const std::string& name,
                            std::span<const std::string> settings) {
  return read(value, nullptr, name, name, settings);
}

}  // namespace steelyard::codec
