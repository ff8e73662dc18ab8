#include "rehearse/generate.h"

#include <fmt/format.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

#include "base/format.h"
#include "rehearse/write/writers.h"

namespace steelyard::rehearse {
namespace {

namespace fs = std::filesystem;
using facts::StorageFormat;

// Streams of noise: that of a size, and that of what is in a file.
std::uint64_t size_stream(std::uint64_t sample) {
  return 2 * sample;
}
std::uint64_t content_stream(std::uint64_t first_sample) {
  return 2 * first_sample + 1;
}

const char* extension_of(StorageFormat format) {
  switch (format) {
    case StorageFormat::npz: return "npz";
    case StorageFormat::tfrecord: return "tfrecord";
    case StorageFormat::jpeg: return "jpg";
    case StorageFormat::parquet: return "parquet";
  }
  return "dat";
}

struct Plan {
  std::int64_t files = 0;
  std::int64_t samples_per_file = 1;
  std::vector<std::string> remarks{};
};

// Whole files of the workload; one smaller file where the size is less than one.
Result<Plan> plan_of(const facts::StorageWorkload& workload, Bytes size) {
  const Bytes file = workload.record * workload.samples_per_file.value();
  if (size < workload.record) {
    return fail({.code = ErrorCode::bad_input,
                 .subject = "the size of the data set",
                 .found = to_text(size),
                 .accepted = fmt::format("at least one record ({})", to_text(workload.record))});
  }
  Plan plan;
  plan.samples_per_file = workload.samples_per_file.value();
  plan.files = std::max<std::int64_t>(1, size.value() / file.value());
  if (size < file) {
    plan.samples_per_file = size.value() / workload.record.value();
    plan.remarks.push_back(fmt::format("a file of {} has {} samples ({}): this one has {}",
                                       workload.id, grouped(workload.samples_per_file.value()),
                                       to_text(file), grouped(plan.samples_per_file)));
  }
  return plan;
}

// Images lie in sub-folders: no folder has more than 10,000.
fs::path path_of(const fs::path& folder, StorageFormat format, std::int64_t file) {
  constexpr std::int64_t kPerFolder = 10'000;
  const fs::path parent =
      format == StorageFormat::jpeg ? folder / fmt::format("{:05}", file / kPerFolder) : folder;
  return parent / fmt::format("part-{:08}.{}", file, extension_of(format));
}

class Generator {
 public:
  Generator(const facts::StorageWorkload& workload, fs::path folder, const GenerateOptions& options,
            Plan plan)
      : workload_(workload),
        folder_(std::move(folder)),
        options_(options),
        plan_(std::move(plan)) {}

  Result<Generated> run() {
    if (workload_.images) {
      STEELYARD_TRY(pictures, Pictures::create(options_.seed));
      pictures_ = std::move(pictures);
    }
    {
      std::vector<std::jthread> threads;
      const std::int64_t count = std::clamp<std::int64_t>(options_.threads, 1, plan_.files);
      for (std::int64_t i = 0; i < count; ++i) threads.emplace_back([this] { work(); });
    }
    if (error_) return fail(*error_);
    done_.stopped = stopped();
    done_.remarks = plan_.remarks;
    return done_;
  }

 private:
  bool stopped() const { return options_.stop != nullptr && options_.stop->load(); }

  void work() {
    while (!stopped() && !failed_.load()) {
      const std::int64_t file = next_.fetch_add(1);
      if (file >= plan_.files) return;
      Result<std::uint64_t> written = write_file(file);
      const std::scoped_lock lock(mutex_);
      if (!written) {
        failed_ = true;
        if (!error_ && !stopped()) error_ = std::move(written).error();
        return;
      }
      if (*written == 0) return;  // stopped within it
      ++done_.files;
      done_.bytes += Bytes(static_cast<std::int64_t>(*written));
      done_.samples += Samples(plan_.samples_per_file);
      if (options_.progress) options_.progress(done_.bytes);
    }
  }

  // The bytes of its records; 0 when it was stopped before its end, and then it is gone.
  Result<std::uint64_t> write_file(std::int64_t number) {
    const fs::path path = path_of(folder_, workload_.format, number);
    std::error_code error;
    fs::create_directories(path.parent_path(), error);
    if (error) return fail(system_error(path.parent_path(), error.value(), "cannot be created"));
    STEELYARD_TRY(file, AtomicFile::create(path));
    const auto first = static_cast<std::uint64_t>(number * plan_.samples_per_file);
    RecordSource source(pictures_ ? &*pictures_ : nullptr,
                        Noise(options_.seed, content_stream(first)));
    std::uint64_t bytes = 0;
    if (workload_.format == StorageFormat::parquet) {
      bytes = static_cast<std::uint64_t>(workload_.record.value() * plan_.samples_per_file);
      STEELYARD_CHECK(write_parquet(file, stoppable(source),
                                    static_cast<std::uint64_t>(workload_.record.value()),
                                    plan_.samples_per_file));
    } else {
      for (std::int64_t i = 0; i < plan_.samples_per_file; ++i) {
        if (stopped()) return std::uint64_t{0};
        const std::uint64_t sample = first + static_cast<std::uint64_t>(i);
        const std::uint64_t size = sample_bytes(workload_, options_.seed, sample);
        STEELYARD_CHECK(write_record(file, source, size));
        bytes += size;
      }
    }
    if (stopped()) return std::uint64_t{0};
    STEELYARD_CHECK(file.finish());
    return bytes;
  }

  // A source that a signal makes run dry.
  RecordSource& stoppable(RecordSource& source) {
    source.stop_when(options_.stop);
    return source;
  }

  Result<void> write_record(AtomicFile& file, RecordSource& source, std::uint64_t bytes) {
    stoppable(source);
    switch (workload_.format) {
      case StorageFormat::npz: return write_npz(file, source, bytes);
      case StorageFormat::tfrecord:
        return write_tfrecord(file, source, bytes, workload_.images ? "image/encoded" : "image");
      default: break;
    }
    STEELYARD_CHECK(source.prepare(bytes));
    return source.give([&](ByteSpan piece) { return file.write(piece); });
  }

  const facts::StorageWorkload& workload_;
  fs::path folder_;
  const GenerateOptions& options_;
  Plan plan_;
  std::optional<Pictures> pictures_{};
  std::atomic<std::int64_t> next_ = 0;
  std::atomic<bool> failed_ = false;
  std::mutex mutex_;
  Generated done_{};              // under the mutex
  std::optional<Error> error_{};  // under the mutex
};

Result<void> is_unused(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return fail(system_error(folder, error.value(), "cannot be created"));
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with('.') || name == "lost+found") continue;
    return fail({.code = ErrorCode::bad_input,
                 .subject = folder.string(),
                 .found = fmt::format("a folder that has {} in it", name),
                 .accepted = "an empty or a new folder",
                 .hint = "name another folder, or empty this one"});
  }
  if (error) return fail(system_error(folder, error.value(), "cannot be read"));
  return {};
}

}  // namespace

std::uint64_t sample_bytes(const facts::StorageWorkload& workload, std::uint64_t seed,
                           std::uint64_t sample) {
  const double mean = workload.record.real();
  if (workload.record_stdev.value() == 0)
    return static_cast<std::uint64_t>(workload.record.value());
  const double drawn =
      mean + workload.record_stdev.real() * Noise(seed, size_stream(sample)).normal();
  return static_cast<std::uint64_t>(std::max(drawn, mean / 10));
}

Result<void> has_room(const fs::path& folder, Bytes bytes) {
  struct statvfs disk {};
  if (::statvfs(folder.c_str(), &disk) != 0) {
    return fail(system_error(folder, errno, "cannot be examined"));
  }
  constexpr double kKept = 0.05;
  const double unit = static_cast<double>(disk.f_frsize);
  const double free = static_cast<double>(disk.f_bavail) * unit;
  const double room = free - kKept * static_cast<double>(disk.f_blocks) * unit;
  if (bytes.real() <= room) return {};
  return fail({.code = ErrorCode::too_large,
               .subject = folder.string(),
               .found = fmt::format("{} to write, {} free", to_text(bytes),
                                    to_text(Bytes(checked_round(free)))),
               .accepted = fmt::format("at most {}: a twentieth of the disk stays free",
                                       to_text(Bytes(checked_round(std::max(room, 0.0))))),
               .hint = "ask for less (--size), or name another disk"});
}

Result<Generated> generate(const facts::StorageWorkload& workload, const fs::path& folder,
                           const GenerateOptions& options) {
  STEELYARD_TRY(plan, plan_of(workload, options.size));
  STEELYARD_CHECK(is_unused(folder));
  const Bytes planned = workload.record * plan.samples_per_file * plan.files;
  STEELYARD_CHECK(has_room(folder, planned));
  return Generator(workload, folder, options, plan).run();
}

}  // namespace steelyard::rehearse
