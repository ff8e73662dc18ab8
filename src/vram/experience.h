// What a replay has learned of scripts: a layer's body asks the allocator for the same sizes in the
// same order again and again, and almost always finds free blocks that matter alike. A script's
// tree holds, as questions, all that its course depends on (which free block a request gets, what a
// freed block merges with), and at the end of each course its outcome: the blocks that it leaves,
// and its fullest moment. Where a course is known, the script need not be played. What is recalled
// is exact: whatever no question has settled is played.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/quantity.h"
#include "facts/plan.h"
#include "vram/allocator_implementation.h"
#include "vram/live.h"
#include "vram/script.h"

namespace steelyard::vram {

// The blocks of the allocator that a course has touched are numbered in that order: its anchors.
// A piece of memory is so many bytes behind the begin of an anchor.
struct Location {
  std::int32_t anchor = -1;
  std::int64_t offset = 0;

  friend bool operator==(const Location&, const Location&) = default;
};

enum class QuestionKind : std::uint8_t {
  unknown,  // not come to yet
  fits,     // does an untouched free block fit better than the best piece?
  lower,    // has `piece` a lower address than `other`?
  freed,    // what does the block of `variable` merge with?
  alive,    // is `variable`?
  outcome,  // none: the course ends
  unfit,    // none: the course is to be played
};

struct Question {
  QuestionKind kind = QuestionKind::unknown;
  PoolKind pool = PoolKind::large;
  int stream = 0;
  std::int32_t variable = 0;    // or the number of the outcome
  std::int64_t size = 0;        // wanted
  std::int64_t piece_size = 0;  // of the best piece; 0: none fits
  Location piece{}, other{};
};

struct Reply {
  // fits: which of these, and the block's size. lower, alive: 0 or 1.
  static constexpr std::int64_t kNothing = 0, kPiece = 1, kPieceOfEqual = 2, kBlock = 3;
  // freed: size, or one of these; pool, stream and category; neighbours: a free block's size,
  // kSolid, or -1 - n for anchor n.
  static constexpr std::int64_t kNoBlock = 0, kForeign = -1, kSolid = 0;

  std::int64_t first = 0, second = 0, before = 0, behind = 0;

  friend bool operator==(const Reply&, const Reply&) = default;
};

struct Outcome {
  struct Area {  // anchors side by side, and what they become
    std::uint32_t first_anchor = 0, anchors = 0;
    std::uint32_t first_part = 0, parts = 0;
  };
  enum class Becomes : std::uint8_t { nothing, part, empty, another };
  struct Change {  // of a variable
    std::int32_t variable = 0;
    Becomes becomes = Becomes::nothing;
    facts::VramCategory category = facts::VramCategory::temporaries;
    std::int32_t from = 0;  // the part; the other variable
  };
  std::vector<Area> areas;
  std::vector<std::int32_t> anchors;
  std::vector<blocks::Part> parts;
  std::vector<Change> changes;
  facts::VramBytes by_category;  // more than before
  // The last of the fullest moments: so much more than before, so many births after the begin.
  std::int64_t births = 0, births_at_peak = 0, allocated_at_peak = 0;
  std::int32_t variable_at_peak = 0;
  facts::VramBytes at_peak;
};

class Tree {
 public:
  struct Node {
    Question question;
    std::vector<std::pair<Reply, std::int32_t>> next;
  };

  explicit Tree(const std::vector<Act>& of) : acts(of), nodes(1) {}
  // Scripts whose courses seldom repeat are played: to rehearse costs some times as much.
  [[nodiscard]] bool worthwhile() const {
    constexpr std::int64_t kTrials = 8, kPlays = 2;
    return kPlays * (misses - kTrials) <= hits;
  }
  // Where the answer leads; -1: nobody has been there.
  [[nodiscard]] std::int32_t after(std::int32_t node, const Reply& answer) const {
    for (const auto& [given, next] : nodes[static_cast<std::size_t>(node)].next) {
      if (given == answer) return next;
    }
    return -1;
  }

  std::vector<Act> acts;
  std::vector<Node> nodes;  // the first one is the root
  std::vector<Outcome> outcomes;
  std::int64_t hits = 0, misses = 0;
};

// The trees of scripts, for replays on devices that are set alike, one after the other.
class Experience {
 public:
  [[nodiscard]] Tree& tree_of(const Script& script);

 private:
  std::unordered_map<std::uint64_t, std::vector<std::unique_ptr<Tree>>> trees_;
};

// One for each replay that runs at the same time, and for each kind of program: what another kind
// taught is in the way of what this one meets.
class Experiences {
 public:
  [[nodiscard]] std::unique_ptr<Experience> borrow(std::size_t kind) {
    const std::scoped_lock lock(mutex_);
    std::vector<std::unique_ptr<Experience>>& idle = idle_[kind];
    if (idle.empty()) return std::make_unique<Experience>();
    std::unique_ptr<Experience> one = std::move(idle.back());
    idle.pop_back();
    return one;
  }
  void give_back(std::size_t kind, std::unique_ptr<Experience> one) {
    const std::scoped_lock lock(mutex_);
    idle_[kind].push_back(std::move(one));
  }

 private:
  std::mutex mutex_;
  std::unordered_map<std::size_t, std::vector<std::unique_ptr<Experience>>> idle_;
};

// Who plays a script's variables: the allocations of one layer and micro-batch.
class Players {
 public:
  Players(std::vector<Live>& lives, Live& carried, const std::vector<Track>& tracks,
          const std::vector<std::int32_t>& slots, const step::Instance& instance)
      : lives_(lives), carried_(carried), tracks_(tracks), slots_(slots), instance_(instance) {}

  [[nodiscard]] Live& of(std::int32_t variable) const {
    if (variable == Script::kCarried) return carried_;
    const auto slot = static_cast<std::size_t>(slots_[static_cast<std::size_t>(variable)]);
    return lives_[tracks_[slot].at(instance_)];
  }

 private:
  std::vector<Live>& lives_;
  Live& carried_;
  const std::vector<Track>& tracks_;
  const std::vector<std::int32_t>& slots_;
  const step::Instance& instance_;
};

// The blocks that a course has touched, by anchor and the other way round.
class Anchors {
 public:
  void clear(std::size_t blocks) {
    blocks_.clear();
    if (marks_.size() < blocks) marks_.resize(blocks);
    ++course_;
  }
  void add(Index block) {
    marks_[static_cast<std::size_t>(block)] = {course_, static_cast<std::int32_t>(blocks_.size())};
    blocks_.push_back(block);
  }
  [[nodiscard]] Index block(std::int32_t anchor) const {
    return blocks_[static_cast<std::size_t>(anchor)];
  }
  [[nodiscard]] std::int32_t of(Index block) const {  // -1: not touched
    const Mark& mark = marks_[static_cast<std::size_t>(block)];
    return mark.course == course_ ? mark.anchor : -1;
  }

 private:
  struct Mark {
    std::uint32_t course = 0;
    std::int32_t anchor = -1;
  };
  std::vector<Index> blocks_;
  std::vector<Mark> marks_;  // by block
  std::uint32_t course_ = 0;
};

// Answers questions about an allocator that stays as it is meanwhile, and touches its blocks.
class Witness {
 public:
  Witness(const CachingAllocator::Implementation& allocator, const Players& players,
          Anchors& anchors)
      : allocator_(allocator), players_(players), anchors_(anchors) {
    anchors_.clear(allocator.block_count());
  }

  [[nodiscard]] Reply answer(const Question& question);
  [[nodiscard]] std::int64_t address_of(const Location& at) const {
    return allocator_.address_of(anchors_.block(at.anchor)) + at.offset;
  }

 private:
  [[nodiscard]] Reply fits(const Question& question);
  [[nodiscard]] Reply freed(const Live& live);
  [[nodiscard]] std::int64_t neighbour(Index block);

  const CachingAllocator::Implementation& allocator_;
  const Players& players_;
  Anchors& anchors_;
};

// The outcome of the course that the tree knows, and its anchors; null where that is to be played:
// then `unknown` says whether nobody has been there.
struct Recalled {
  const Outcome* outcome = nullptr;
  bool unknown = false;
};
[[nodiscard]] Recalled recall(const Tree& tree, Witness& witness);

// Brings outcomes about.
class Stagehand {
 public:
  void apply(const Outcome& outcome, const Anchors& anchors, const Players& players,
             CachingAllocator::Implementation& allocator);

 private:
  std::vector<Index> made_, old_;  // kept for their memory
  std::vector<Live> others_;
};

}  // namespace steelyard::vram
