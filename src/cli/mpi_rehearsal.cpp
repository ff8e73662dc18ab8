#include "cli/mpi_rehearsal.h"

#include <cstdlib>

#ifdef STEELYARD_MPI

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/format.h"
#include "cli/mpi_process.h"

namespace steelyard::cli {
namespace {

constexpr int kTurn = 1, kAgreed = 2, kLength = 3, kText = 4;  // tags of messages
constexpr std::size_t kHostName = 64;

// A turn, or what was agreed on, as it travels.
struct Message {
  std::int64_t ready = 0, wait = 0, slowest = 0;
  std::int64_t end = -1;  // -1: none
};
constexpr int kNumbers = 4;

std::int64_t number_of(const std::optional<facts::RehearsalEnd>& end) {
  return end ? static_cast<std::int64_t>(*end) : -1;
}
std::optional<facts::RehearsalEnd> end_of(std::int64_t number) {
  if (number < 0) return std::nullopt;
  return static_cast<facts::RehearsalEnd>(number);
}

// All speak with the first process, and it answers all: so it knows who is missing. Nothing waits
// inside of MPI, whose calls would keep a core busy and never come back when a process is lost.
class MpiRehearsal : public RehearsalCrew {
 public:
  MpiRehearsal() : many_(static_cast<std::size_t>(process_.size())) {
    std::array<char, kHostName> name{};
    gethostname(name.data(), name.size() - 1);
    std::vector<char> all(many_ * kHostName);
    MPI_Allgather(name.data(), static_cast<int>(kHostName), MPI_CHAR, all.data(),
                  static_cast<int>(kHostName), MPI_CHAR, MPI_COMM_WORLD);
    for (std::size_t i = 0; i < many_; ++i) hosts_.emplace_back(all.data() + i * kHostName);
  }
  ~MpiRehearsal() override {
    if (lost_) abandon();
  }

  [[nodiscard]] std::size_t size() const override { return many_; }
  [[nodiscard]] std::size_t rank() const override {
    return static_cast<std::size_t>(process_.rank());
  }
  [[nodiscard]] std::string host() const override { return hosts_[rank()]; }
  [[nodiscard]] bool lost_one() const override { return lost_; }
  [[nodiscard]] int threads() const { return process_.threads(); }

  [[noreturn]] void abandon() override {
    MPI_Abort(MPI_COMM_WORLD, 2);
    std::_Exit(2);
  }

  [[nodiscard]] Result<rehearse::Agreed> agree(const rehearse::Turn& own,
                                               Seconds patience) override;
  [[nodiscard]] Result<std::vector<std::string>> gathered(const std::string& own,
                                                          Seconds patience) override;

 private:
  // Until all requests are done, at most so long. Requests are of the ranks 1, 2, ... or one of 0.
  [[nodiscard]] Result<void> done(Seconds patience);
  [[nodiscard]] Result<void> collect(void* to, std::size_t stride, int count, MPI_Datatype type,
                                     int tag, Seconds patience);
  [[nodiscard]] Result<void> tell(const void* what, int count, MPI_Datatype type, int tag,
                                  Seconds patience);
  [[nodiscard]] Result<void> hear(void* to, int count, MPI_Datatype type, int tag,
                                  Seconds patience);
  [[nodiscard]] Error lost(Seconds patience);

  MpiProcess process_{MPI_THREAD_SERIALIZED};
  std::size_t many_;
  std::vector<std::string> hosts_;
  // Members, for a request that is given up still knows where its bytes are.
  std::vector<Message> turns_;
  Message own_, answer_;
  std::vector<std::int64_t> lengths_;
  std::vector<std::string> texts_;
  std::string text_;
  std::int64_t length_ = 0;
  std::vector<MPI_Request> requests_;
  bool lost_ = false;
};

// Others wait somewhat longer for the first process than it for them: its word names who is lost.
Seconds of_others(Seconds patience) {
  return patience * 1.5 + Seconds(2);
}

Error MpiRehearsal::lost(Seconds patience) {
  lost_ = true;
  std::string who;
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    int is_done = 0;
    MPI_Test(&requests_[i], &is_done, MPI_STATUS_IGNORE);
    if (is_done != 0) continue;
    const std::size_t rank = process_.rank() == 0 ? i + 1 : 0;
    who += (who.empty() ? "rank " : ", rank ") + std::to_string(rank) + " on " + hosts_[rank];
  }
  return {.code = ErrorCode::unreadable,
          .subject = who.empty() ? "the other processes" : who,
          .found = "no word for " + to_text(patience),
          .accepted = "a sign every tenth of a second, or a longer --patience",
          .hint = "the process is lost or its node hangs; all others were ended"};
}

Result<void> MpiRehearsal::done(Seconds patience) {
  constexpr std::int64_t kLeast = 5'000, kMost = 200'000;  // nanoseconds
  const std::int64_t until = rehearse::now() + rehearse::nanoseconds(patience);
  for (std::int64_t nap = kLeast;; nap = std::min(2 * nap, kMost)) {
    int are_done = 0;
    MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &are_done,
                MPI_STATUSES_IGNORE);
    if (are_done != 0) return {};
    if (rehearse::now() > until) return fail(lost(patience));
    const timespec time{.tv_sec = 0, .tv_nsec = nap};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &time, nullptr);
  }
}

Result<void> MpiRehearsal::collect(void* to, std::size_t stride, int count, MPI_Datatype type,
                                   int tag, Seconds patience) {
  requests_.assign(many_ - 1, MPI_REQUEST_NULL);
  for (std::size_t rank = 1; rank < many_; ++rank) {
    MPI_Irecv(static_cast<char*>(to) + rank * stride, count, type, static_cast<int>(rank), tag,
              MPI_COMM_WORLD, &requests_[rank - 1]);
  }
  return done(patience);
}

Result<void> MpiRehearsal::tell(const void* what, int count, MPI_Datatype type, int tag,
                                Seconds patience) {
  const bool first = process_.rank() == 0;
  requests_.assign(first ? many_ - 1 : 1, MPI_REQUEST_NULL);
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    MPI_Isend(what, count, type, first ? static_cast<int>(i) + 1 : 0, tag, MPI_COMM_WORLD,
              &requests_[i]);
  }
  return done(patience);
}

Result<void> MpiRehearsal::hear(void* to, int count, MPI_Datatype type, int tag, Seconds patience) {
  requests_.assign(1, MPI_REQUEST_NULL);
  MPI_Irecv(to, count, type, 0, tag, MPI_COMM_WORLD, requests_.data());
  return done(patience);
}

Result<rehearse::Agreed> MpiRehearsal::agree(const rehearse::Turn& own, Seconds patience) {
  own_ = {.ready = own.ready ? 1 : 0, .wait = own.wait, .end = number_of(own.end)};
  if (process_.rank() > 0) {
    STEELYARD_CHECK(tell(&own_, kNumbers, MPI_INT64_T, kTurn, of_others(patience)));
    STEELYARD_CHECK(hear(&answer_, kNumbers, MPI_INT64_T, kAgreed, of_others(patience)));
    return rehearse::Agreed{.ready = answer_.ready != 0,
                            .wait = answer_.wait,
                            .slowest = static_cast<std::size_t>(answer_.slowest),
                            .end = end_of(answer_.end)};
  }
  turns_.assign(many_, own_);
  STEELYARD_CHECK(collect(turns_.data(), sizeof(Message), kNumbers, MPI_INT64_T, kTurn, patience));
  std::vector<rehearse::Turn> turns;
  for (const Message& turn : turns_) {
    turns.push_back({.ready = turn.ready != 0, .wait = turn.wait, .end = end_of(turn.end)});
  }
  const rehearse::Agreed all = rehearse::agreed(turns);
  answer_ = {.ready = all.ready ? 1 : 0,
             .wait = all.wait,
             .slowest = static_cast<std::int64_t>(all.slowest),
             .end = number_of(all.end)};
  STEELYARD_CHECK(tell(&answer_, kNumbers, MPI_INT64_T, kAgreed, patience));
  return all;
}

Result<std::vector<std::string>> MpiRehearsal::gathered(const std::string& own, Seconds patience) {
  text_ = own;
  length_ = static_cast<std::int64_t>(own.size());
  const bool first = process_.rank() == 0;
  if (first) {
    lengths_.assign(many_, length_);
    STEELYARD_CHECK(collect(lengths_.data(), sizeof length_, 1, MPI_INT64_T, kLength, patience));
    texts_.assign(many_, own);
    requests_.assign(many_ - 1, MPI_REQUEST_NULL);
    for (std::size_t rank = 1; rank < many_; ++rank) {
      texts_[rank].resize(static_cast<std::size_t>(lengths_[rank]));
      MPI_Irecv(texts_[rank].data(), static_cast<int>(lengths_[rank]), MPI_CHAR,
                static_cast<int>(rank), kText, MPI_COMM_WORLD, &requests_[rank - 1]);
    }
    STEELYARD_CHECK(done(patience));
    text_ = rehearse::packed(texts_);
    length_ = static_cast<std::int64_t>(text_.size());
    STEELYARD_CHECK(tell(&length_, 1, MPI_INT64_T, kLength, patience));
  } else {
    const Seconds longer = of_others(patience);
    STEELYARD_CHECK(tell(&length_, 1, MPI_INT64_T, kLength, longer));
    STEELYARD_CHECK(tell(text_.data(), static_cast<int>(length_), MPI_CHAR, kText, longer));
    STEELYARD_CHECK(hear(&length_, 1, MPI_INT64_T, kLength, longer));
    text_.resize(static_cast<std::size_t>(length_));
  }
  // To many processes over a tree.
  requests_.assign(1, MPI_REQUEST_NULL);
  MPI_Ibcast(text_.data(), static_cast<int>(length_), MPI_CHAR, 0, MPI_COMM_WORLD,
             requests_.data());
  STEELYARD_CHECK(done(first ? patience : of_others(patience)));
  return rehearse::unpacked(text_);
}

}  // namespace

Result<std::unique_ptr<RehearsalCrew>> rehearsal_crew() {
  if (!was_started_together()) return std::unique_ptr<RehearsalCrew>();
  auto crew = std::make_unique<MpiRehearsal>();
  if (crew->threads() < MPI_THREAD_SERIALIZED) {
    return fail({.code = ErrorCode::not_supported,
                 .subject = "several processes with this MPI library",
                 .found = "only its first thread may speak (MPI_THREAD_FUNNELED)",
                 .accepted = "MPI_THREAD_SERIALIZED"});
  }
  return std::unique_ptr<RehearsalCrew>(std::move(crew));
}

#else

namespace steelyard::cli {

Result<std::unique_ptr<RehearsalCrew>> rehearsal_crew() {
  return std::unique_ptr<RehearsalCrew>();
}

#endif

std::string alone_remark() {
  const auto many = [](const char* name) {
    const char* text = std::getenv(name);
    return text != nullptr && std::strtol(text, nullptr, 10) > 1;
  };
  if (!many("OMPI_COMM_WORLD_SIZE") && !many("PMI_SIZE") && !many("SLURM_STEP_NUM_TASKS"))
    return {};
  return "several processes were started and know nothing of each other: each of them rehearses "
         "alone (a build with MPI, and srun with --mpi=pmix, let them take their steps together)";
}

}  // namespace steelyard::cli
