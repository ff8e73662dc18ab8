#include "cli/planning.h"

#include <fmt/format.h>

#include "catalog/pipeline_companions.h"
#include "cli/measured_data.h"
#include "codec/codec.h"
#include "exchange/exchange.h"
#include "exchange/megatron_equivalent.h"

namespace steelyard::cli {
namespace {

// A path given on the command line is relative to the current folder, one in a job file to that
// file; so a path becomes absolute before it joins a job.
std::string catalogue_id_or_absolute(const std::string& given) {
  std::error_code failed;
  if (!std::filesystem::exists(given, failed)) return given;
  return std::filesystem::absolute(given).string();
}

// The shortcuts as the keys they stand for.
facts::Value as_keys(const JobWords& words) {
  const bool has_file = !words.file.empty();
  const auto named = [&](const std::string& given) {
    return has_file ? catalogue_id_or_absolute(given) : given;
  };
  facts::Value model;
  if (!words.model.empty()) model.set("config", named(words.model));
  facts::Value machine;
  if (!words.machine.empty()) machine.set("name", named(words.machine));
  if (!words.gpu.empty()) machine.set("gpu", words.gpu);
  if (words.gpus) machine.set("gpus", *words.gpus);
  if (words.nodes) machine.set("nodes", *words.nodes);
  facts::Value keys(facts::Object{});
  if (!has_file) keys.set("name", words.model);
  if (!model.is_null()) keys.set("model", std::move(model));
  if (!machine.is_null()) keys.set("machine", std::move(machine));
  return keys;
}

// The same as --set texts, for a job that also has a file.
std::vector<std::string> as_settings(const facts::Value& keys) {
  std::vector<std::string> settings;
  for (const auto& [room, members] : *keys.as_object()) {
    if (members.as_object() == nullptr) continue;  // the name, which a file has of its own
    for (const auto& [key, value] : *members.as_object()) {
      settings.push_back(fmt::format("{}.{}={}", room, key, codec::to_json(value, -1)));
    }
  }
  return settings;
}

// Other tools' tables of arguments are read only by jobs that import something.
Result<facts::Job> with_import(const ReadJob& read, const catalog::Catalog& catalog) {
  if (!read.job.import.megatron) return read.job;
  STEELYARD_TRY(table, catalog.import_table("megatron"));
  return exchange::imported(read.job, read.folder, table);
}

// data.sizes_from: the folder's real sizes, where the job gives none itself.
Result<void> measure_folder(facts::Job& job, const std::filesystem::path& folder) {
  if (!job.data.sizes_from || job.data.bytes_per_sample) return {};
  STEELYARD_TRY(dataset, rehearse::open_dataset(folder / *job.data.sizes_from));
  measure_data(dataset, false, job);
  return {};
}

// Framework profiles say whose code builds the models (operators.models). Adapters and frozen parts
// name the family's own modules, and other objectives ask for its heads: those keep its graph.
Result<void> with_own_model(const facts::Job& job, const facts::FrameworkProfile& framework,
                            const catalog::Catalog& catalog, facts::ModelSource& model) {
  const auto models = framework.operators.find("models");
  const bool own = models != framework.operators.end() && models->second == "engine";
  const facts::TrainKeys& train = job.train;
  const bool plain = train.method == facts::Method::full &&
                     train.objective == facts::Objective::sft && train.trainable.empty() &&
                     train.frozen.empty() && job.model.companions.empty();
  if (!own || !plain || job.import.megatron || model.stored != nullptr) return {};
  STEELYARD_TRY(models_table, catalog.import_table("megatron_models"));
  STEELYARD_TRY(arguments_table, catalog.import_table("megatron"));
  STEELYARD_TRY(config, exchange::megatron_equivalent(model.config, job.parallel.tensor,
                                                      models_table, arguments_table));
  if (config) model.config = std::move(*config);
  return {};
}

}  // namespace

Result<ReadJob> read_job(const JobWords& words) {
  const facts::Value keys = as_keys(words);
  if (words.file.empty()) {
    if (words.model.empty()) {
      return fail({.code = ErrorCode::missing_value,
                   .subject = "no job",
                   .accepted = "a job file, or --model with --gpu or --machine",
                   .hint = "steelyard plan --model config.json --gpu h100-sxm-80gb"});
    }
    STEELYARD_TRY(job, codec::job_from(keys, "the command line", words.settings));
    return ReadJob{std::move(job), std::filesystem::current_path(), ""};
  }
  std::vector<std::string> settings = as_settings(keys);
  settings.insert(settings.end(), words.settings.begin(), words.settings.end());
  STEELYARD_TRY(job, codec::read_job(words.file, settings));
  // What the command line names stands in place of what the file names.
  if (!words.machine.empty() && words.gpu.empty()) job.machine.gpu.reset();
  if (!words.gpu.empty() && words.machine.empty()) job.machine.name.reset();
  return ReadJob{std::move(job), std::filesystem::path(words.file).parent_path(), words.file};
}

Result<plan::Request> request_of(const ReadJob& read, const catalog::Catalog& catalog) {
  plan::Request request;
  STEELYARD_TRY(job, with_import(read, catalog));
  STEELYARD_CHECK(measure_folder(job, read.folder));
  STEELYARD_TRY(model, catalog.model_of(job, read.folder));
  STEELYARD_TRY(named, catalog::pipeline_companions(job, read.folder));
  if (!named.empty()) {
    job.model.companions = std::move(named);
    job.origins["model.companions"] = {facts::Origin::model, {}};
  }
  STEELYARD_TRY(companions, catalog.companions_of(job, read.folder));
  STEELYARD_TRY(roles, catalog.roles_of(job, model, read.folder));
  STEELYARD_TRY(machine, catalog.machine_of(job, read.folder));
  STEELYARD_TRY(constants, catalog.constants(job.framework, job.versions));
  if (job.data.loader) {
    STEELYARD_TRY(loader, catalog.loader(*job.data.loader));
    constants.host.loader = std::move(loader);
  }
  STEELYARD_CHECK(with_own_model(job, constants.framework, catalog, model));
  request.job = std::move(job);
  request.model = std::move(model);
  request.companions = std::move(companions);
  request.roles = std::move(roles);
  request.machine = std::move(machine);
  request.constants = std::move(constants);
  facts::Job elsewhere = request.job;  // with as many GPUs as here
  if (!elsewhere.machine.gpus && request.machine.gpus > 0) {
    elsewhere.machine.gpus = request.machine.gpus;
  }
  request.alternatives = [catalog, job = std::move(elsewhere)] {
    return catalog.alternatives(job).value_or(std::vector<facts::Machine>());
  };
  return request;
}

Error placed(Error error, const ReadJob& read) {
  if (!error.file.empty() || read.file.empty()) return error;
  const auto written = read.job.origins.find(error.subject);
  if (written == read.job.origins.end() || !written->second.line) return error;
  error.file = read.file;
  error.line = written->second.line;
  return error;
}

}  // namespace steelyard::cli
