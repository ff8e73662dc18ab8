// `steelyard rehearse`: the data path, really run.
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <ostream>
#include <thread>

#include "base/format.h"
#include "cli/command.h"
#include "cli/job_options.h"
#include "cli/mpi_rehearsal.h"
#include "cli/rehearsal_plan.h"
#include "cli/rehearse_storage.h"
#include "cli/rehearse_together.h"
#include "cli/what_if.h"
#include "codec/codec.h"
#include "codec/rehearsal.h"
#include "rehearse/tune.h"
#include "report/report.h"

namespace steelyard::cli {
namespace {

struct RehearseOptions {
  JobWords words;
  std::string data;
  rehearse::OpenOptions open;
  StorageOptions storage;
  std::optional<std::int64_t> accelerators, batch, workers, prefetch, side;
  std::optional<double> step_time, seconds, memory_limit_gib;
  std::int64_t depth = 32;
  std::uint64_t seed = 0;
  std::string pixels = "u8", on_error = "fail", device = "paced";
  double target = 0.95, patience = 60;
  bool direct = false, in_order = false, tune = false, json = false, ascii = false;
};

constexpr double kSeconds = 10, kSecondsOfATry = 3;
// With a process that still opens its data set.
constexpr Seconds kSetupPatience = Seconds(600);

volatile std::sig_atomic_t asked_to_end = 0;

// SIGINT and SIGTERM ask the rehearsal to end; what was measured is printed. A second one kills.
class Signals {
 public:
  Signals() {
    asked_to_end = 0;
    struct sigaction action {};
    action.sa_handler = [](int) { asked_to_end = 1; };
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    sigaction(SIGINT, &action, &interrupt_);
    sigaction(SIGTERM, &action, &terminate_);
  }
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;
  ~Signals() {
    sigaction(SIGINT, &interrupt_, nullptr);
    sigaction(SIGTERM, &terminate_, nullptr);
  }

 private:
  struct sigaction interrupt_ {
  }, terminate_{};
};

// One line on a terminal, written over; nothing elsewhere.
class Line {
 public:
  Line(std::ostream& err, bool speaks) : err_(err), shown_(speaks && isatty(STDERR_FILENO) == 1) {}
  Line(const Line&) = delete;
  Line& operator=(const Line&) = delete;
  ~Line() {
    if (shown_) err_ << "\r\x1b[K" << std::flush;
  }
  void show(const rehearse::Progress& progress) {
    if (!shown_) return;
    std::string used;
    if (progress.utilization) {
      used = fmt::format(", accelerators used {:.1f} %", 100 * progress.utilization->value());
    }
    err_ << fmt::format("\r\x1b[K{}: {} samples, {}{}, {} faults", to_text(progress.elapsed),
                        grouped(progress.samples.value()), to_text(progress.rate), used,
                        grouped(progress.faults))
         << std::flush;
  }

 private:
  std::ostream& err_;
  bool shown_;
};

// A job's plan, with what the plan of this engine needs besides.
struct Planned {
  facts::Plan plan;
  facts::HostConstants constants;
};

Result<std::optional<Planned>> plan_of(const Session& session, const RehearseOptions& options) {
  if (options.words.file.empty() && options.words.model.empty()) return std::optional<Planned>();
  STEELYARD_TRY(base, base_of(session, options.words));
  STEELYARD_TRY(loader, base.catalog.loader("rehearsal"));
  Planned planned{std::move(base.planned), std::move(base.request.constants.host)};
  planned.constants.loader = std::move(loader);
  return std::optional<Planned>(std::move(planned));
}

template <class T, class U>
void set(T& field, const std::optional<U>& given) {
  if (given) field = T(*given);
}

Result<void> is_time(const char* option, const std::optional<double>& seconds, bool may_be_none) {
  if (!seconds || *seconds > 0.0 || (may_be_none && *seconds == 0.0)) return {};
  return fail({.code = ErrorCode::bad_input,
               .subject = option,
               .found = fmt::format("{}", *seconds),
               .accepted = may_be_none ? "0 or more seconds" : "more than 0 seconds"});
}

Result<rehearse::Settings> settings_of(const RehearseOptions& options,
                                       const std::optional<Planned>& planned,
                                       const std::optional<Preset>& preset,
                                       const HostShare& share) {
  rehearse::Settings settings;
  STEELYARD_CHECK(is_time("--seconds", options.seconds, false));
  STEELYARD_CHECK(is_time("--step-time", options.step_time, true));
  settings.workers = std::max(1U, std::thread::hardware_concurrency());
  if (planned) {
    STEELYARD_TRY(of_job, cli::settings_of(planned->plan, !options.step_time));
    settings = of_job;
    STEELYARD_TRY(each, accelerators_of_each(settings.accelerators, share));
    settings.accelerators = each;
  }
  settings.workers = std::max<std::int64_t>(1, settings.workers / share.processes);
  if (preset) {
    settings.batch = preset->workload.batch.value();
    settings.step_time = preset->workload.computation;
  }
  set(settings.accelerators, options.accelerators);
  set(settings.batch, options.batch);
  set(settings.workers, options.workers);
  set(settings.prefetch, options.prefetch);
  set(settings.step_time, options.step_time);
  settings.duration = Seconds(options.seconds.value_or(options.tune ? kSecondsOfATry : kSeconds));
  settings.direct = options.direct;
  settings.most_depth = options.depth;
  if (options.side) settings.shape.side = static_cast<int>(*options.side);
  settings.shape.pixels = options.pixels == "f32" ? rehearse::Pixels::f32 : rehearse::Pixels::u8;
  settings.shuffled = !options.in_order;
  settings.seed = options.seed;
  settings.skip_faults = options.on_error == "skip";
  settings.patience = Seconds(options.patience);
  if (options.memory_limit_gib) {
    settings.memory_limit = Bytes(checked_round(*options.memory_limit_gib * (1 << 30)));
  }
  return settings;
}

Result<std::string> data_of(const RehearseOptions& options, const std::optional<Planned>& planned) {
  if (!options.data.empty()) return options.data;
  if (planned && planned->plan.job.data.sizes_from) {
    // As written in the job: relative to the folder of its file.
    const auto folder = std::filesystem::path(options.words.file).parent_path();
    return (folder / *planned->plan.job.data.sizes_from).string();
  }
  return fail({.code = ErrorCode::missing_value,
               .subject = "the data to read",
               .found = "neither --data nor the job's data.sizes_from",
               .accepted = "--data FOLDER_OR_FILE",
               .hint = "steelyard rehearse --help"});
}

void say_what_it_takes(const Session& session, const rehearse::Forecast& forecast) {
  session.terminal.err << fmt::format(
      "takes {}: batches {}, read buffers {}, decoding {}, index {}, the program {}{}\n",
      to_text(forecast.total()), to_text(forecast.batches), to_text(forecast.read_buffers),
      to_text(forecast.decoding), to_text(forecast.index), to_text(forecast.program),
      forecast.limit ? "; limit " + to_text(*forecast.limit) + " of " + forecast.limited_by
                     : std::string());
}

// What a process has read and decided before anything runs.
struct Prepared {
  std::optional<Planned> plan;
  std::string data;
  std::optional<Preset> preset;
  rehearse::Settings settings;
  rehearse::Dataset dataset;
  std::unique_ptr<rehearse::CudaDevices> devices;  // none: accelerators are paced
};

// Opened before memory is told: what the driver holds of it is the program's.
Result<std::unique_ptr<rehearse::CudaDevices>> devices_of(const RehearseOptions& options,
                                                          const HostShare& share, bool planned,
                                                          rehearse::Settings& settings) {
  if (options.device != "cuda") return std::unique_ptr<rehearse::CudaDevices>();
  // Where nothing says how many, all that the driver shows.
  const bool all = !options.accelerators && !planned && share.processes == 1;
  rehearse::CudaOptions cuda{.patience = settings.patience};
  if (!all) cuda.accelerators = settings.accelerators;
  cuda.first = share.index * settings.accelerators;
  STEELYARD_TRY(devices, rehearse::CudaDevices::open(cuda));
  settings.accelerators = static_cast<std::int64_t>(devices->count());
  return std::move(devices);
}

Result<Prepared> prepare(const Session& session, const RehearseOptions& options,
                         const HostShare& share) {
  STEELYARD_TRY(plan, plan_of(session, options));
  STEELYARD_TRY(data, data_of(options, plan));
  STEELYARD_TRY(preset, preset_of(session, options.storage));
  STEELYARD_TRY(settings, settings_of(options, plan, preset, share));
  STEELYARD_TRY(dataset, rehearse::open_dataset(data, opened_for(preset, options.open)));
  STEELYARD_TRY(devices, devices_of(options, share, plan.has_value(), settings));
  STEELYARD_CHECK(rehearse::forecast(dataset, settings));
  return Prepared{.plan = std::move(plan),
                  .data = std::move(data),
                  .preset = std::move(preset),
                  .settings = settings,
                  .dataset = std::move(dataset),
                  .devices = std::move(devices)};
}

bool speaks(const rehearse::Crew* crew) {
  return crew == nullptr || crew->rank() == 0;
}

Result<facts::Rehearsal> run_once(const Session& session, const Prepared& prepared,
                                  const rehearse::Settings& settings, rehearse::Crew* crew) {
  const rehearse::Partners partners{.crew = crew, .devices = prepared.devices.get()};
  Line line(session.terminal.err, speaks(crew));
  const auto watcher = [&](const rehearse::Progress& progress) {
    line.show(progress);
    return asked_to_end == 0;
  };
  return rehearse::rehearse(prepared.dataset, settings, watcher, {}, partners);
}

Result<facts::Rehearsal> run_or_tune(const Session& session, const RehearseOptions& options,
                                     const Prepared& prepared, rehearse::Crew* crew) {
  const rehearse::Trial trial = [&](const rehearse::Settings& tried) -> Result<facts::Rehearsal> {
    STEELYARD_TRY(rehearsal, run_once(session, prepared, tried, crew));
    if (options.tune && rehearsal.end == facts::RehearsalEnd::signal) {
      return fail({.code = ErrorCode::bad_input, .subject = "--tune was interrupted"});
    }
    return rehearsal;
  };
  if (!options.tune) return trial(prepared.settings);
  // Processes that tune together try the same: what the smallest node has.
  const std::int64_t cores = std::max<std::int64_t>(1, std::thread::hardware_concurrency());
  STEELYARD_TRY(most, least_of_all(crew, options.workers.value_or(cores), kSetupPatience));
  STEELYARD_TRY(tuned, rehearse::tune(prepared.settings, most, Ratio(options.target), trial));
  return std::move(tuned.rehearsal);
}

void print(const Session& session, const RehearseOptions& options,
           const facts::Rehearsal& rehearsal) {
  if (options.json) {
    session.terminal.out << codec::to_json(codec::to_value(rehearsal)) << "\n";
  } else {
    session.terminal.out << report::rehearsal_text(rehearsal, {.columns = session.terminal.columns,
                                                               .colour = session.terminal.colour,
                                                               .ascii = options.ascii});
  }
}

// The plan of a host, whose processes have the accelerators and workers among them.
Result<void> put_plan_beside(const Prepared& prepared, const HostShare& share,
                             facts::Rehearsal& rehearsal) {
  rehearse::Settings host = prepared.settings;
  host.accelerators = checked_multiply(host.accelerators, share.processes);
  host.workers = checked_multiply(host.workers, share.processes);
  const Planned& planned = *prepared.plan;
  STEELYARD_TRY(engine, engine_plan(planned.plan, planned.constants, prepared.dataset, host));
  put_beside(planned.plan, engine, rehearsal);
  scale_planned(planned.plan, rehearsal);
  return {};
}

// The whole of one process. Of several only the first prints.
Result<ExitStatus> run_process(const Session& session, const RehearseOptions& options,
                               rehearse::Crew* crew) {
  STEELYARD_TRY(share, host_share(crew, kSetupPatience));
  const Result<Prepared> result = prepare(session, options, share);
  STEELYARD_CHECK(all_well(crew, result ? Result<void>() : fail(result.error()), kSetupPatience));
  const Prepared& prepared = *result;
  STEELYARD_TRY(forecast, rehearse::forecast(prepared.dataset, prepared.settings));
  if (speaks(crew)) say_what_it_takes(session, forecast);
  const Signals signals;
  STEELYARD_TRY(own, run_or_tune(session, options, prepared, crew));
  own.setting.data = prepared.data;
  for (const std::string& remark : prepared.dataset.remarks) own.notes.push_back(remark);
  for (const rehearse::Fault& fault : prepared.dataset.faults) {
    own.notes.push_back(fault.file + ": " + fault.what);
  }
  STEELYARD_TRY(rehearsal, of_all(crew, std::move(own), prepared.settings.patience));
  if (prepared.preset) put_beside(*prepared.preset, prepared.dataset.total, rehearsal);
  if (prepared.plan) STEELYARD_CHECK(put_plan_beside(prepared, share, rehearsal));
  const std::string remark = crew == nullptr ? alone_remark() : std::string();
  if (!remark.empty()) rehearsal.notes.push_back(remark);
  if (speaks(crew)) print(session, options, rehearsal);
  if (rehearsal.end != facts::RehearsalEnd::fault) return ExitStatus::success;
  if (speaks(crew)) {
    session.terminal.err << (prepared.settings.skip_faults
                                 ? "steelyard: ended: every record is broken\n"
                                 : "steelyard: ended by broken records; --on-error skip leaves "
                                   "them out\n");
  }
  return ExitStatus::bad_input;
}

// Of several processes the first one speaks for all: what it ends with is the status of all, and
// mpirun would stop it amid its words if another one ended with an error before. Where one is lost,
// each that knows says so, and ends all.
Result<ExitStatus> run_rehearse(const Session& session, const RehearseOptions& options) {
  STEELYARD_TRY(crew, rehearsal_crew());
  Result<ExitStatus> status = run_process(session, options, crew.get());
  if (crew == nullptr) return status;
  if (crew->lost_one() && !status) {
    session.terminal.err << "steelyard: " << to_text(status.error()) << std::endl;
    crew->abandon();
  }
  return crew->rank() == 0 ? status : ExitStatus::success;
}

// Several processes would write the same files.
Result<ExitStatus> run_storage_alone(const Session& session, const StorageOptions& options) {
  STEELYARD_TRY(crew, rehearsal_crew());
  const Result<void> alone = crew == nullptr || crew->size() == 1
                                 ? Result<void>()
                                 : fail({.code = ErrorCode::not_supported,
                                         .subject = "--generate and --checkpoint",
                                         .found = fmt::format("{} processes", crew->size()),
                                         .accepted = "one process"});
  if (alone) return run_storage(session, options);
  if (crew->rank() > 0) return ExitStatus::success;
  return fail(alone.error());
}

void add_what(CLI::App& command, RehearseOptions& options) {
  command.add_option("--data", options.data, "Folder or file to read (else data.sizes_from)")
      ->type_name("FOLDER_OR_FILE");
  command.add_option("--format", options.open.format, "Of the records; else by the names of files")
      ->type_name("images|tar|tfrecord|npy|tokens|npz|parquet|raw");
  command
      .add_option("--record-bytes", options.open.record_bytes,
                  "raw: size of a record; 0: the whole file")
      ->type_name("BYTES");
  command.add_option("--sequence", options.open.sequence_tokens, "tokens: length of a sequence")
      ->type_name("TOKENS");
  command.add_option("--accelerators", options.accelerators, "That take batches")->type_name("N");
  command
      .add_option("--device", options.device,
                  "What accelerators are: only paced, or GPUs that batches are copied to")
      ->type_name("paced|cuda");
  command
      .add_option("--step-time", options.step_time, "Of an accelerator; 0: as fast as they come")
      ->type_name("SECONDS");
  command.add_option("--batch", options.batch, "Samples of one accelerator's step")->type_name("N");
  command.add_option("--workers", options.workers, "Decoding threads; else one per core")
      ->type_name("N");
  command.add_option("--prefetch", options.prefetch, "Batches ahead per accelerator")
      ->type_name("N");
  command.add_option("--side", options.side, "Of the square images, 224")->type_name("PIXELS");
  command.add_option("--pixels", options.pixels, "Bytes, or normalised floats")
      ->type_name("u8|f32");
}

void add_how(CLI::App& command, RehearseOptions& options) {
  command.add_option("--seconds", options.seconds, "How long, 10; of each try of --tune, 3")
      ->type_name("SECONDS");
  command.add_flag("--direct", options.direct, "Read past the page cache");
  command.add_option("--depth", options.depth, "Most read requests at once")->type_name("N");
  command.add_flag("--in-order", options.in_order, "Do not shuffle");
  command.add_option("--seed", options.seed, "Of the shuffling and cropping")->type_name("N");
  command.add_option("--on-error", options.on_error, "Broken records end it, or are left out")
      ->type_name("fail|skip");
  command
      .add_option("--memory-limit", options.memory_limit_gib,
                  "Refuse to take more; the control group's and the machine's bind too")
      ->type_name("GIB");
  command
      .add_option("--patience", options.patience,
                  "With mpirun: a process that is silent so long is lost, and all end")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.1, 1e6));
  command.add_flag("--tune", options.tune,
                   "Find the least workers, prefetch and memory that are enough");
  command.add_option("--target", options.target, "Utilization that is enough for --tune")
      ->type_name("RATIO")
      ->check(CLI::Range(0.01, 1.0));
  command.add_flag("--json", options.json, "As JSON (steelyard schema rehearsal)");
  command.add_flag("--ascii", options.ascii, "Plain ASCII instead of lines");
}

}  // namespace

void add_rehearse(CLI::App& tree, Session& session) {
  CLI::App& command = add_command(
      tree, "rehearse", "Really run the data path: read, decode, batch, at the accelerators' pace",
      {"steelyard rehearse --data /data/imagenet --accelerators 8 --batch 256 --step-time 0.315",
       "steelyard rehearse job.toml --data /data/imagenet --seconds 30",
       "steelyard rehearse --data shards/ --batch 64 --step-time 0.1 --tune --target 0.95",
       "steelyard rehearse --data images/ --workers 8 --json",
       "mpirun -n 16 --map-by ppr:1:node steelyard rehearse job.toml --data /data/imagenet",
       "steelyard rehearse --generate /data/unet3d --preset unet3d/h100 --size 20GiB",
       "steelyard rehearse --data /data/unet3d --preset unet3d/h100 --accelerators 2",
       "steelyard rehearse --checkpoint llama3-8b --path /data --size 2GiB"});
  const auto options = std::make_shared<RehearseOptions>();
  add_job_options(command, options->words);
  add_what(command, *options);
  add_how(command, *options);
  add_catalog_option(command, session);
  add_storage_options(command, options->storage);
  command.callback([&session, options] {
    options->storage.seed = options->seed;
    options->storage.json = options->json;
    options->storage.accelerators = options->accelerators.value_or(1);
    session.chosen = [&session, options] {
      return wants_storage(options->storage) ? run_storage_alone(session, options->storage)
                                             : run_rehearse(session, *options);
    };
  });
}

}  // namespace steelyard::cli
