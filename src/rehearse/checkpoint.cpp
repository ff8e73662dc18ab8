#include "rehearse/checkpoint.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "base/format.h"
#include "rehearse/generate.h"
#include "rehearse/storage_preset.h"
#include "rehearse/write/atomic_file.h"
#include "rehearse/write/noise.h"

namespace steelyard::rehearse {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kChunk = 4 << 20;  // of one write or read

Seconds since(Clock::time_point start) {
  return Seconds(std::chrono::duration<double>(Clock::now() - start).count());
}

class Descriptor {
 public:
  Descriptor(const fs::path& path, int flags)
      : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0600)) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

// A folder that is gone with this object.
class OwnFolder {
 public:
  explicit OwnFolder(const fs::path& parent)
      : path_(parent / fmt::format("steelyard-checkpoint.{}", ::getpid())) {}
  OwnFolder(const OwnFolder&) = delete;
  OwnFolder& operator=(const OwnFolder&) = delete;
  ~OwnFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

struct Piece {  // one file
  fs::path path;
  std::uint64_t bytes = 0;
};

// Two files per rank, as DLIO's: the model's states and the optimizer's, 2 to 12.
std::vector<Piece> pieces_of(const fs::path& folder, Bytes size, std::int64_t ranks) {
  std::vector<Piece> pieces;
  const auto total = static_cast<std::uint64_t>(size.value());
  const auto count = static_cast<std::uint64_t>(ranks);
  for (std::uint64_t rank = 0; rank < count; ++rank) {
    const std::uint64_t share = total / count + (rank < total % count ? 1 : 0);
    const std::uint64_t model = share / 7;  // 2 of 14 bytes
    pieces.push_back({folder / fmt::format("model_states_rank_{:04}.pt", rank), model});
    pieces.push_back({folder / fmt::format("optimizer_states_rank_{:04}.pt", rank), share - model});
  }
  return pieces;
}

class Rehearsal {
 public:
  Rehearsal(std::vector<Piece> pieces, const CheckpointOptions& options)
      : pieces_(std::move(pieces)), options_(options), shared_(kChunk) {
    Noise(1).fill(shared_);
  }

  Result<Seconds> write() {
    slowest_sync_ = Seconds(0);
    return on_all([this](const Piece& piece, std::vector<unsigned char>&) { return write(piece); });
  }
  Result<Seconds> read() {
    return on_all(
        [this](const Piece& piece, std::vector<unsigned char>& to) { return read(piece, to); });
  }
  // Asks the kernel to forget what it keeps of the files.
  void drop_caches() const {
    for (const Piece& piece : pieces_) {
      const Descriptor file(piece.path, O_RDONLY);
      if (file.get() >= 0) (void)::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
    }
  }
  // The share of the pages that are in memory.
  [[nodiscard]] Ratio cached() const {
    const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    std::uint64_t pages = 0, resident = 0;
    std::vector<unsigned char> map;
    for (const Piece& piece : pieces_) {
      const Descriptor file(piece.path, O_RDONLY);
      if (file.get() < 0 || piece.bytes == 0) continue;
      void* at = ::mmap(nullptr, piece.bytes, PROT_READ, MAP_SHARED, file.get(), 0);
      if (at == MAP_FAILED) continue;
      map.resize((piece.bytes + page - 1) / page);
      if (::mincore(at, piece.bytes, map.data()) == 0) {
        pages += map.size();
        resident += static_cast<std::uint64_t>(
            std::count_if(map.begin(), map.end(), [](unsigned char in) { return (in & 1U) != 0; }));
      }
      ::munmap(at, piece.bytes);
    }
    return Ratio(pages == 0 ? 0 : static_cast<double>(resident) / static_cast<double>(pages));
  }
  [[nodiscard]] Seconds slowest_sync() const { return slowest_sync_; }
  [[nodiscard]] std::int64_t threads() const {
    const auto ranks = static_cast<std::int64_t>(pieces_.size() / 2);
    return std::clamp<std::int64_t>(options_.threads, 1, ranks);
  }
  [[nodiscard]] Bytes memory() const {
    return Bytes(static_cast<std::int64_t>(kChunk) * (threads() + 1));
  }

 private:
  // Ranks are taken one after the other by the threads; each has two files.
  template <class Work>
  Result<Seconds> on_all(Work work) {
    next_ = 0;
    failed_ = false;
    error_.reset();
    const Clock::time_point start = Clock::now();
    {
      std::vector<std::jthread> threads;
      for (std::int64_t i = 0; i < this->threads(); ++i) {
        threads.emplace_back([&] {
          std::vector<unsigned char> buffer(kChunk);
          while (!failed_.load()) {
            const std::size_t rank = next_.fetch_add(1);
            if (2 * rank >= pieces_.size()) return;
            for (std::size_t file = 2 * rank; file < 2 * rank + 2; ++file) {
              Result<void> done = work(pieces_[file], buffer);
              if (!done) return set_error(std::move(done).error());
            }
          }
        });
      }
    }
    if (error_) return fail(*error_);
    return since(start);
  }

  void set_error(Error error) {
    const std::scoped_lock lock(mutex_);
    failed_ = true;
    if (!error_) error_ = std::move(error);
  }

  [[nodiscard]] Result<void> go_on() const {
    if (options_.stop == nullptr || !options_.stop->load()) return {};
    return fail({.code = ErrorCode::bad_input,
                 .subject = "the checkpoint",
                 .found = "stopped",
                 .accepted = "to be written and read to its end"});
  }

  Result<void> write(const Piece& piece) {
    const Descriptor file(piece.path, O_WRONLY | O_CREAT | O_TRUNC);
    if (file.get() < 0) return fail(system_error(piece.path, errno, "cannot be created"));
    for (std::uint64_t at = 0; at < piece.bytes; at += kChunk) {
      STEELYARD_CHECK(go_on());
      const std::uint64_t length = std::min<std::uint64_t>(kChunk, piece.bytes - at);
      STEELYARD_CHECK(write_all(file.get(), at, ByteSpan(shared_).first(length), piece.path));
    }
    const Clock::time_point start = Clock::now();
    if (::fsync(file.get()) != 0) return fail(system_error(piece.path, errno, "cannot be synced"));
    const Seconds took = since(start);
    const std::scoped_lock lock(mutex_);
    slowest_sync_ = std::max(slowest_sync_, took);
    return {};
  }

  Result<void> read(const Piece& piece, std::vector<unsigned char>& to) const {
    const Descriptor file(piece.path, O_RDONLY);
    if (file.get() < 0) return fail(system_error(piece.path, errno, "cannot be opened"));
    for (std::uint64_t at = 0; at < piece.bytes; at += kChunk) {
      STEELYARD_CHECK(go_on());
      const auto length =
          static_cast<std::size_t>(std::min<std::uint64_t>(kChunk, piece.bytes - at));
      for (std::size_t done = 0; done < length;) {
        const ssize_t got =
            ::pread(file.get(), &to[done], length - done, static_cast<off_t>(at + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail(system_error(piece.path, errno, "cannot be read"));
        if (got == 0) return fail(changed(piece, at + done));
        done += static_cast<std::size_t>(got);
      }
      // Both ends of a chunk: enough to see data that came back from the wrong place.
      const std::size_t ends = std::min<std::size_t>(length, 4096);
      if (std::memcmp(to.data(), shared_.data(), ends) != 0 ||
          std::memcmp(&to[length - ends], &shared_[length - ends], ends) != 0) {
        return fail(changed(piece, at));
      }
    }
    return {};
  }

  static Error changed(const Piece& piece, std::uint64_t at) {
    return {.code = ErrorCode::unreadable,
            .subject = piece.path.string(),
            .found = fmt::format("other data than were written at offset {}", at),
            .accepted = "the same"};
  }

  std::vector<Piece> pieces_;
  const CheckpointOptions& options_;
  std::vector<unsigned char> shared_;
  std::atomic<std::size_t> next_ = 0;
  std::atomic<bool> failed_ = false;
  std::mutex mutex_{};
  std::optional<Error> error_{};  // under the mutex
  Seconds slowest_sync_{};        // under the mutex
};

Bytes whole_of(const facts::CheckpointWorkload& workload) {
  return model_bytes(workload) + optimizer_bytes(workload);
}

Result<Bytes> size_of(const facts::CheckpointWorkload& workload, const CheckpointOptions& options) {
  const Bytes whole = whole_of(workload);
  const Bytes size = options.size.value() == 0 ? whole : options.size;
  constexpr std::int64_t kLeast = 1 << 20;
  if (size.value() >= kLeast && size <= whole && options.rounds >= 1 && options.rounds <= 1000) {
    return size;
  }
  return fail(
      {.code = ErrorCode::bad_input,
       .subject = "the size of the checkpoint and its rounds",
       .found = fmt::format("{}, {} rounds", to_text(size), options.rounds),
       .accepted = fmt::format("1 MiB to {} ({}), 1 to 1000 rounds", to_text(whole), workload.id)});
}

// What a reader must know of the figures.
void add_remarks(const facts::StorageRules& rules, const CheckpointOptions& options,
                 facts::CheckpointRun& run) {
  if (run.bytes < run.whole) {
    run.remarks.push_back(fmt::format("{} of {}: {} ranks of {} each", to_text(run.bytes),
                                      to_text(run.whole), run.ranks,
                                      to_text(Bytes(run.bytes.value() / run.ranks))));
  }
  constexpr double kNoticed = 0.01;
  if (run.cached.value() > kNoticed) {
    run.remarks.push_back(fmt::format(
        "{} of the data were in the page cache when they were read{}: the read rate is not that of "
        "the storage",
        percent(run.cached), run.caches_dropped ? ", though it was asked to drop them" : ""));
  } else if (run.caches_dropped) {
    run.remarks.push_back(fmt::format(
        "less than {:g} x the host memory: the page cache was dropped between write and read",
        rules.checkpoint_memory));
  }
  constexpr std::int64_t kRounds = 10;
  if (options.rounds < kRounds) {
    run.remarks.push_back(fmt::format("{} round{}: MLPerf Storage asks for 10 writes and 10 reads",
                                      options.rounds, options.rounds == 1 ? "" : "s"));
  }
}

}  // namespace

std::int64_t ranks_for(const facts::CheckpointWorkload& workload, Bytes size) {
  const std::int64_t all = processes_of(workload);
  const double share =
      size / whole_of(workload) >= Ratio(1) ? 1 : (size / whole_of(workload)).value();
  constexpr std::int64_t kLeast = 8;
  const auto scaled = checked_round(static_cast<double>(all) * share);
  return std::min(all, std::max(kLeast, scaled));
}

Result<facts::CheckpointRun> rehearse_checkpoint(const facts::CheckpointWorkload& workload,
                                                 const facts::StorageRules& rules,
                                                 const fs::path& folder,
                                                 const CheckpointOptions& options) {
  STEELYARD_TRY(size, size_of(workload, options));
  STEELYARD_CHECK(has_room(folder, size));
  const OwnFolder own(folder);
  std::error_code error;
  fs::create_directory(own.path(), error);
  if (error) return fail(system_error(own.path(), error.value(), "cannot be created"));
  facts::CheckpointRun run;
  run.workload = workload.id;
  run.whole = whole_of(workload);
  run.bytes = size;
  run.ranks = ranks_for(workload, size);
  run.caches_dropped = size < options.memory * Ratio(rules.checkpoint_memory);
  Rehearsal rehearsal(pieces_of(own.path(), size, run.ranks), options);
  run.threads = rehearsal.threads();
  run.memory = rehearsal.memory();
  for (std::int64_t round = 0; round < options.rounds; ++round) {
    STEELYARD_TRY(written, rehearsal.write());
    run.writes.push_back(written);
    run.syncs.push_back(rehearsal.slowest_sync());
    if (run.caches_dropped) rehearsal.drop_caches();
    run.cached = std::max(run.cached, rehearsal.cached());
    STEELYARD_TRY(read, rehearsal.read());
    run.reads.push_back(read);
  }
  add_remarks(rules, options, run);
  return run;
}

}  // namespace steelyard::rehearse
