#include "cli/rehearse_storage.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <ostream>
#include <thread>
#include <utility>

#include "base/format.h"
#include "base/parse_bytes.h"
#include "catalog/storage_workloads.h"
#include "codec/codec.h"
#include "codec/storage_run.h"
#include "rehearse/checkpoint.h"
#include "rehearse/generate.h"
#include "rehearse/storage_preset.h"
#include "report/checkpoint_text.h"

namespace steelyard::cli {
namespace {

std::atomic<bool> stopped = false;

// Ctrl-C and a batch system's SIGTERM end the work in order: nothing half-written stays.
class Stop {
 public:
  Stop() : interrupt_(std::signal(SIGINT, on_signal)), terminate_(std::signal(SIGTERM, on_signal)) {
    stopped = false;
  }
  Stop(const Stop&) = delete;
  Stop& operator=(const Stop&) = delete;
  ~Stop() {
    std::signal(SIGINT, interrupt_);
    std::signal(SIGTERM, terminate_);
  }

 private:
  static void on_signal(int) { stopped = true; }
  void (*interrupt_)(int);
  void (*terminate_)(int);
};

Bytes host_memory() {
  return Bytes(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGESIZE);
}

Error missing(const char* option, const char* accepted) {
  return {.code = ErrorCode::missing_value,
          .subject = option,
          .found = "nothing",
          .accepted = accepted};
}

struct Written {
  rehearse::Generated data;
  Seconds time;
};

// What is known of the data set and what must be said of it.
std::vector<std::string> remarks_of(const Preset& preset, const StorageOptions& options,
                                    const rehearse::Generated& data) {
  std::vector<std::string> remarks = data.remarks;
  for (std::string& remark : rehearse::dataset_remarks(
           preset.workload, preset.rules, options.accelerators, host_memory(), data.bytes)) {
    remarks.push_back(std::move(remark));
  }
  return remarks;
}

std::string generated_text(const Preset& preset, const StorageOptions& options,
                           const Written& written) {
  const rehearse::Generated& data = written.data;
  std::string text = fmt::format(
      "Wrote {} file{} of {} into {}: {} sample{}, {}, in {} ({})\n", grouped(data.files),
      data.files == 1 ? "" : "s", preset.workload.id, options.generate,
      grouped(data.samples.value()), data.samples.value() == 1 ? "" : "s", to_text(data.bytes),
      to_text(written.time), to_text(data.bytes / written.time));
  text += fmt::format(
      "  One accelerator takes {} ({} sample{} in {}).\n",
      to_text(rehearse::demand(preset.workload)), grouped(preset.workload.batch.value()),
      preset.workload.batch.value() == 1 ? "" : "s", to_text(preset.workload.computation));
  for (const std::string& remark : remarks_of(preset, options, data)) {
    text += "  Note: " + remark + ".\n";
  }
  return text;
}

std::string generated_json(const Preset& preset, const StorageOptions& options,
                           const Written& written) {
  const facts::GeneratedRun run{.preset = preset.workload.id,
                                .folder = options.generate,
                                .files = written.data.files,
                                .samples = written.data.samples,
                                .bytes = written.data.bytes,
                                .took = written.time,
                                .demand = rehearse::demand(preset.workload),
                                .remarks = remarks_of(preset, options, written.data)};
  return codec::to_json(codec::to_value(run)) + "\n";
}

Result<ExitStatus> run_generate(const Session& session, const StorageOptions& options) {
  if (options.size.empty()) return fail(missing("--size", "the size of the data set, as 20GiB"));
  STEELYARD_TRY(named, preset_of(session, options));
  if (!named) return fail(missing("--preset", "a workload, such as unet3d/h100"));
  const Preset& preset = *named;
  STEELYARD_TRY(size, parse_bytes(options.size, "--size"));
  const Stop stop;
  const bool shown = ::isatty(STDERR_FILENO) != 0 && !options.json;
  const auto cores = static_cast<std::int64_t>(std::thread::hardware_concurrency());
  const rehearse::GenerateOptions how{
      .size = size,
      .seed = options.seed,
      .threads = options.threads > 0 ? options.threads : std::max<std::int64_t>(1, cores),
      .stop = &stopped,
      .progress = [&](Bytes bytes) {
        if (shown)
          session.terminal.err << fmt::format("\r{} of {} ", to_text(bytes), to_text(size));
      }};
  const auto start = std::chrono::steady_clock::now();
  Result<rehearse::Generated> done = rehearse::generate(preset.workload, options.generate, how);
  if (shown) session.terminal.err << "\r\x1b[K";
  if (!done) return fail(std::move(done).error());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  if (done->stopped) {
    return fail({.code = ErrorCode::bad_input,
                 .subject = options.generate,
                 .found = fmt::format("stopped by a signal after {} whole files ({})", done->files,
                                      to_text(done->bytes)),
                 .accepted = "a data set that is written to its end",
                 .hint = "remove the folder and run it again"});
  }
  const Written written{*std::move(done), Seconds(took.count())};
  session.terminal.out << (options.json ? generated_json(preset, options, written)
                                        : generated_text(preset, options, written));
  return ExitStatus::success;
}

Result<ExitStatus> run_checkpoint(const Session& session, const StorageOptions& options) {
  if (options.size.empty()) return fail(missing("--size", "what to write, as 2GiB, or all"));
  STEELYARD_TRY(catalog, open_catalog(session));
  STEELYARD_TRY(storage, catalog::storage_catalogue(catalog));
  STEELYARD_TRY(workload, storage.checkpoint(options.checkpoint));
  Bytes size;
  if (options.size != "all") {
    STEELYARD_TRY(given, parse_bytes(options.size, "--size"));
    size = given;
    if (size.value() == 0) return fail(missing("--size", "1MiB or more, or all"));
  }
  const Stop stop;
  constexpr std::int64_t kRanks = 8;  // of one host
  const rehearse::CheckpointOptions how{.size = size,
                                        .rounds = options.rounds,
                                        .threads = options.threads > 0 ? options.threads : kRanks,
                                        .memory = host_memory(),
                                        .stop = &stopped};
  STEELYARD_TRY(run, rehearse::rehearse_checkpoint(workload, storage.rules, options.path, how));
  session.terminal.out << (options.json ? codec::to_json(codec::to_value(run)) + "\n"
                                        : report::checkpoint_text(run));
  return ExitStatus::success;
}

}  // namespace

void add_storage_options(CLI::App& command, StorageOptions& options) {
  const char* group = "MLPerf Storage";
  command.add_option("--preset", options.preset, "A workload of MLPerf Storage: unet3d/h100 ...")
      ->type_name("PRESET")
      ->group(group);
  command
      .add_option("--generate", options.generate,
                  "Make up the preset's data set in this new or empty folder")
      ->type_name("FOLDER")
      ->group(group);
  command
      .add_option("--checkpoint", options.checkpoint,
                  "Write and read back a checkpoint: llama3-8b, -70b, -405b, -1t")
      ->type_name("NAME")
      ->group(group);
  command.add_option("--path", options.path, "Where the checkpoint is written (and removed)")
      ->type_name("FOLDER")
      ->group(group);
  command.add_option("--size", options.size, "How much: 20GiB; for a checkpoint also all")
      ->type_name("SIZE")
      ->group(group);
  command.add_option("--io-threads", options.threads, "Threads that write and read files")
      ->type_name("N")
      ->group(group)
      ->check(CLI::Range(1, 4096));
  command.add_option("--rounds", options.rounds, "Of writing and reading a checkpoint")
      ->type_name("N")
      ->group(group)
      ->check(CLI::Range(1, 1000));
}

bool wants_storage(const StorageOptions& options) {
  return !options.generate.empty() || !options.checkpoint.empty();
}

Result<ExitStatus> run_storage(const Session& session, const StorageOptions& options) {
  if (!options.generate.empty() && !options.checkpoint.empty()) {
    return fail({.code = ErrorCode::impossible_combination,
                 .subject = "--generate and --checkpoint",
                 .found = "both",
                 .accepted = "one of them"});
  }
  return options.generate.empty() ? run_checkpoint(session, options)
                                  : run_generate(session, options);
}

Result<std::optional<Preset>> preset_of(const Session& session, const StorageOptions& options) {
  if (options.preset.empty()) return std::optional<Preset>();
  STEELYARD_TRY(catalog, open_catalog(session));
  STEELYARD_TRY(storage, catalog::storage_catalogue(catalog));
  STEELYARD_TRY(workload, storage.workload(options.preset));
  return std::optional<Preset>(Preset{workload, storage.rules});
}

rehearse::OpenOptions opened_for(const std::optional<Preset>& preset,
                                 rehearse::OpenOptions options) {
  const bool parquet = preset && preset->workload.format == facts::StorageFormat::parquet;
  if (parquet && options.record_bytes == 0) {
    options.record_bytes = static_cast<std::uint64_t>(preset->workload.record.value());
  }
  return options;
}

void put_beside(const Preset& preset, Bytes dataset, facts::Rehearsal& rehearsal) {
  for (std::string& remark : rehearse::dataset_remarks(
           preset.workload, preset.rules, rehearsal.setting.accelerators, host_memory(), dataset)) {
    rehearsal.notes.push_back(std::move(remark));
  }
  const std::optional<Ratio> least = preset.workload.least_utilization;
  if (!least || !rehearsal.utilization_mean) return;
  rehearsal.notes.push_back(
      fmt::format("{} asks for a mean utilization of {}: {}", preset.workload.id, percent(*least),
                  *rehearsal.utilization_mean >= *least ? "reached" : "not reached"));
}

}  // namespace steelyard::cli
