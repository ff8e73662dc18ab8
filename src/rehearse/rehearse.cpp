#include "rehearse/rehearse.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include "rehearse/device_accelerator.h"
#include "rehearse/faults.h"
#include "rehearse/host_memory.h"
#include "rehearse/numa_counters.h"
#include "rehearse/summary.h"
#include "rehearse/worker.h"

namespace steelyard::rehearse {
namespace {

constexpr Nanoseconds kLook = 50'000'000;       // between two looks at memory and the clock
constexpr Nanoseconds kProgress = 200'000'000;  // between two calls of the watcher

facts::FaultKind kind_of(int error) {
  if (error == 0) return facts::FaultKind::truncated;
  if (error == ENOENT || error == ENOTDIR || error == ESTALE) return facts::FaultKind::vanished;
  return facts::FaultKind::read_error;
}

std::string words_of(int error) {
  return error == 0 ? "ends before the record does" : std::strerror(error);
}

Shard shard_of(const Crew* crew) {
  return crew == nullptr ? Shard() : Shard{.rank = crew->rank(), .of = crew->size()};
}

// One rehearsal from its buffers to its end. Threads refer to its members: it does not move.
class Run {
 public:
  Run(const Dataset& dataset, const Settings& settings, const Watcher& watcher,
      const Injection& injection, const Partners& partners)
      : dataset_(dataset),
        settings_(settings),
        watcher_(watcher),
        injection_(injection),
        crew_(partners.crew),
        devices_(partners.devices),
        order_(dataset.records.size(), settings.seed, settings.shuffled, shard_of(partners.crew)) {}
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  ~Run() {
    if (devices_ != nullptr) devices_->give_back();
  }

  Result<facts::Rehearsal> go(const Forecast& forecast);

 private:
  Result<void> make_buffers();
  Result<std::unique_ptr<Reader>> make_reader(ReadContext& context);
  void measure(Reader& reader, WorkContext& work);
  void watch();
  void look_at_memory();
  void stop(facts::RehearsalEnd why);
  void fault(std::uint64_t record, facts::FaultKind kind, const std::string& what);
  void broken(Error error);
  void took_batch();
  void start_accelerators(std::vector<std::jthread>& threads);
  void run_one(std::size_t accelerator);
  void conduct_all();
  [[nodiscard]] Progress progress() const;

  const Dataset& dataset_;
  const Settings& settings_;
  const Watcher& watcher_;
  const Injection& injection_;
  Crew* crew_;
  CudaDevices* devices_;
  Order order_;
  Ledger ledger_;
  Faults faults_;
  HostMemory memory_;
  NumaCounters numa_;
  std::unique_ptr<ReadBuffers> buffers_;
  std::unique_ptr<Batches> batches_;
  BoundedQueue<ReadItem> ready_;
  StageTime read_time_, work_time_, accelerator_time_;
  std::vector<AcceleratorTime> accelerators_;
  OwnWaits waits_;
  std::atomic<bool> stop_{false};
  std::atomic<std::int64_t> samples_{0}, depth_{0};
  std::atomic<std::int64_t> bad_in_a_row_{0};
  std::mutex end_mutex_;
  std::optional<facts::RehearsalEnd> end_;
  std::optional<Error> error_;
  bool crew_lost_ = false;
  Nanoseconds began_ = 0, ended_ = 0;
  MemoryPeak peak_;
  bool direct_ = false;
  std::string reader_name_ = "io_uring";
  std::vector<std::string> notes_;
};

void Run::stop(facts::RehearsalEnd why) {
  {
    const std::scoped_lock lock(end_mutex_);
    if (!end_) end_ = why;
  }
  if (stop_.exchange(true)) return;
  ready_.close();
  buffers_->close();
  batches_->close();
}

void Run::broken(Error error) {
  {
    const std::scoped_lock lock(end_mutex_);
    if (!error_) error_ = std::move(error);
  }
  stop(facts::RehearsalEnd::fault);
}

void Run::fault(std::uint64_t record, facts::FaultKind kind, const std::string& what) {
  faults_.add(kind, dataset_.files[dataset_.records[record].file], what);
  // Where a whole epoch brings no sample, none will come.
  const bool hopeless = ++bad_in_a_row_ > static_cast<std::int64_t>(dataset_.records.size()) + 1;
  if (!settings_.skip_faults || hopeless) stop(facts::RehearsalEnd::fault);
}

void Run::took_batch() {
  const std::int64_t taken = samples_ += settings_.batch;
  if (settings_.most_samples && taken >= *settings_.most_samples) {
    stop(facts::RehearsalEnd::samples);
  }
}

Result<void> Run::make_buffers() {
  const SlotPlan slots = plan_slots(dataset_, slots_of(settings_), direct_);
  STEELYARD_TRY(buffers, ReadBuffers::make(slots, ledger_));
  buffers_ = std::move(buffers);
  STEELYARD_TRY(batches,
                Batches::make(batches_of(settings_), static_cast<std::size_t>(settings_.batch),
                              sample_bytes_of(dataset_, settings_.shape), ledger_,
                              devices_ == nullptr ? std::vector<int>() : devices_->nodes()));
  batches_ = std::move(batches);
  if (devices_ == nullptr) return {};
  return devices_->take(batches_->memory(0), batches_->all_bytes(), batches_->batch_bytes());
}

Result<std::unique_ptr<Reader>> Run::make_reader(ReadContext& context) {
  auto ring = make_ring_reader(context);
  if (ring) return ring;
  reader_name_ = "threads";
  notes_.push_back(ring.error().subject + " is refused here (" + ring.error().found +
                   "): threads read instead");
  return make_thread_reader(context);
}

void Run::look_at_memory() {
  const MemoryNow now = memory_.read();
  peak_.add(now);
}

Progress Run::progress() const {
  Progress progress{.elapsed = seconds(now() - began_),
                    .samples = Samples(samples_),
                    .rate = rate_of(accelerators_, settings_.batch),
                    .faults = faults_.total()};
  if (settings_.step_time.value() > 0) progress.utilization = least_utilization(accelerators_);
  return progress;
}

void Run::watch() {
  const Nanoseconds until = began_ + nanoseconds(settings_.duration);
  Nanoseconds next = began_ + kProgress;
  while (!stop_) {
    look_at_memory();
    const Nanoseconds time = now();
    if (time >= until) return stop(facts::RehearsalEnd::time);
    if (watcher_ && time >= next) {
      if (!watcher_(progress())) return stop(facts::RehearsalEnd::signal);
      next = time + kProgress;
    }
    const timespec nap{.tv_sec = 0, .tv_nsec = std::min(kLook, until - time)};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, nullptr);
  }
}

void Run::conduct_all() {
  const Conducted context{.crew = *crew_,
                          .batches = *batches_,
                          .step = nanoseconds(settings_.step_time),
                          .patience = settings_.patience,
                          .stop = stop_,
                          .accelerators = accelerators_,
                          .waits = waits_,
                          .devices = devices_,
                          .took = [this] { took_batch(); },
                          .end =
                              [this] {
                                const std::scoped_lock lock(end_mutex_);
                                return end_;
                              },
                          .stop_all =
                              [this](facts::RehearsalEnd why) {
                                {
                                  const std::scoped_lock lock(end_mutex_);
                                  end_ = why;  // whatever this process wanted itself
                                }
                                stop(why);
                              },
                          .broken = [this](Error error) { broken(std::move(error)); }};
  auto done = conduct(context);
  if (done) return;
  crew_lost_ = true;
  broken(std::move(done).error());
}

void Run::run_one(std::size_t accelerator) {
  const Nanoseconds step = nanoseconds(settings_.step_time);
  const auto took = [this] { took_batch(); };
  AcceleratorTime& time = accelerators_[accelerator];
  if (devices_ == nullptr) return run_accelerator(*batches_, step, stop_, time, took);
  auto done = run_device(*batches_, *devices_, accelerator, step, stop_, time, took);
  if (!done) broken(std::move(done).error());
}

void Run::start_accelerators(std::vector<std::jthread>& threads) {
  if (crew_ != nullptr) {
    threads.emplace_back([this] {
      conduct_all();
      accelerator_time_.add({.began = now()});
    });
    return;
  }
  for (std::size_t i = 0; i < accelerators_.size(); ++i) {
    threads.emplace_back([this, i] {
      run_one(i);
      accelerator_time_.add({.began = now()});
    });
  }
}

void Run::measure(Reader& reader, WorkContext& work) {
  began_ = now();
  std::vector<std::jthread> threads;
  start_accelerators(threads);
  for (std::int64_t i = 0; i < settings_.workers; ++i) {
    threads.emplace_back([&work] { run_worker(work); });
  }
  reader.run();
  watch();
  ended_ = now();
  reader.join();
  threads.clear();
  look_at_memory();
}

Result<facts::Rehearsal> Run::go(const Forecast& forecast) {
  direct_ = settings_.direct && direct_works(dataset_);
  if (settings_.direct && !direct_) {
    notes_.push_back("the file system refuses direct reads: the page cache is in between");
  }
  ledger_.add(Kind::index, forecast.index.value());
  ledger_.add(Kind::decoding, forecast.decoding.value());
  STEELYARD_CHECK(all_well(crew_, make_buffers(), settings_.patience));
  accelerators_ = std::vector<AcceleratorTime>(static_cast<std::size_t>(settings_.accelerators));
  ReadContext read{.dataset = dataset_,
                   .order = order_,
                   .buffers = *buffers_,
                   .ready = ready_,
                   .stop = stop_,
                   .injection = injection_,
                   .direct = direct_,
                   .most_depth = settings_.most_depth,
                   .time = read_time_,
                   .depth_reached = depth_,
                   .fault = [this](std::uint64_t record,
                                   int error) { fault(record, kind_of(error), words_of(error)); },
                   .broken = [this](Error error) { broken(std::move(error)); }};
  WorkContext work{
      .dataset = dataset_,
      .order = order_,
      .buffers = *buffers_,
      .ready = ready_,
      .batches = *batches_,
      .time = work_time_,
      .ledger = ledger_,
      .shape = settings_.shape,
      .scaled_decode = settings_.scaled_decode,
      .seed = settings_.seed,
      .sample_bytes = sample_bytes_of(dataset_, settings_.shape),
      .flaw = [this](std::uint64_t record,
                     const Flaw& flaw) { fault(record, facts::FaultKind::corrupt, flaw); },
      .good = [this] { bad_in_a_row_.store(0, std::memory_order_relaxed); }};
  STEELYARD_TRY(reader, make_reader(read));
  measure(*reader, work);
  const Result<void> well = error_ ? fail(*error_) : Result<void>();
  STEELYARD_CHECK(crew_lost_ ? well : all_well(crew_, well, settings_.patience));

  const Measured measured{
      .dataset = dataset_,
      .settings = settings_,
      .forecast = forecast,
      .ledger = ledger_,
      .peak = peak_,
      .read = read_time_,
      .work = work_time_,
      .accelerator = accelerator_time_,
      .accelerators = accelerators_,
      .elapsed = seconds(ended_ - began_),
      .samples = samples_,
      .epochs = static_cast<double>(read_time_.done()) / static_cast<double>(order_.length())};
  facts::Rehearsal rehearsal = summary(measured);
  rehearsal.nodes = numa_.since();
  if (devices_ != nullptr) rehearsal.devices = devices_->counted();
  if (crew_ != nullptr) rehearsal.crew = crew_of(measured, *crew_, waits_);
  rehearsal.setting.direct = direct_;
  rehearsal.setting.reader = reader_name_;
  rehearsal.setting.read_depth = depth_;
  rehearsal.end = end_.value_or(facts::RehearsalEnd::time);
  rehearsal.faults = faults_.list();
  rehearsal.notes.insert(rehearsal.notes.begin(), notes_.begin(), notes_.end());
  return rehearsal;
}

Result<Forecast> checked_forecast(const Dataset& dataset, const Settings& settings) {
  STEELYARD_TRY(expected, forecast(dataset, settings));
  if (expected.limit && expected.total() > *expected.limit) {
    return fail(beyond(expected.total(), *expected.limit, expected.limited_by));
  }
  return std::move(expected);
}

}  // namespace

Result<facts::Rehearsal> rehearse(const Dataset& dataset, const Settings& settings,
                                  const Watcher& watcher, const Injection& injection,
                                  const Partners& partners) {
  Crew* const crew = partners.crew;
  const Result<Forecast> expected = checked_forecast(dataset, settings);
  const Result<void> fits = expected ? Result<void>() : fail(expected.error());
  STEELYARD_CHECK(all_well(crew, fits, settings.patience));
  if (crew != nullptr) STEELYARD_CHECK(all_fit(*crew, *expected, settings.patience));
  return Run(dataset, settings, watcher, injection, partners).go(*expected);
}

}  // namespace steelyard::rehearse
