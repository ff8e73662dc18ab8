// A crew of threads of one process: what MPI does between processes, without MPI.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "rehearse/crew.h"

namespace steelyard::rehearse::testing {

// Where the threads of a crew meet. All leave a round with what each of them gave.
class Meeting {
 public:
  explicit Meeting(std::size_t size) : given_(size), left_(size) {}

  Result<std::vector<std::string>> round(std::size_t rank, std::string own, Seconds patience) {
    std::unique_lock lock(mutex_);
    given_[rank] = std::move(own);
    const std::uint64_t mine = rounds_;
    if (++came_ == given_.size()) {
      left_ = std::exchange(given_, std::vector<std::string>(given_.size()));
      came_ = 0;
      ++rounds_;
      all_came_.notify_all();
    } else if (!all_came_.wait_for(lock, std::chrono::duration<double>(patience.value()),
                                   [&] { return rounds_ != mine; })) {
      return fail({.code = ErrorCode::unreadable, .subject = "a rank", .found = "no answer"});
    }
    return left_;
  }

  [[nodiscard]] std::size_t size() const { return given_.size(); }

 private:
  std::mutex mutex_;
  std::condition_variable all_came_;
  std::vector<std::string> given_, left_;
  std::size_t came_ = 0;
  std::uint64_t rounds_ = 0;
};

class ThreadCrew : public Crew {
 public:
  ThreadCrew(Meeting& meeting, std::size_t rank, std::string host)
      : meeting_(meeting), rank_(rank), host_(std::move(host)) {}

  [[nodiscard]] std::size_t size() const override { return meeting_.size(); }
  [[nodiscard]] std::size_t rank() const override { return rank_; }
  [[nodiscard]] std::string host() const override { return host_; }
  [[nodiscard]] Result<std::vector<std::string>> gathered(const std::string& own,
                                                          Seconds patience) override {
    return meeting_.round(rank_, own, patience);
  }
  [[nodiscard]] Result<Agreed> agree(const Turn& own, Seconds patience) override {
    const std::vector<std::string> words{own.ready ? "1" : "0", std::to_string(own.wait),
                                         own.end ? std::to_string(static_cast<int>(*own.end)) : ""};
    STEELYARD_TRY(all, meeting_.round(rank_, packed(words), patience));
    std::vector<Turn> turns;
    for (const std::string& one : all) {
      const std::vector<std::string> said = unpacked(one);
      Turn& turn = turns.emplace_back();
      turn.ready = said[0] == "1";
      turn.wait = std::stoll(said[1]);
      if (!said[2].empty()) turn.end = static_cast<facts::RehearsalEnd>(std::stoi(said[2]));
    }
    return agreed(turns);
  }

 private:
  Meeting& meeting_;
  std::size_t rank_;
  std::string host_;
};

}  // namespace steelyard::rehearse::testing
