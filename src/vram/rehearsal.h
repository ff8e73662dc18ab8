// Plays a script beside the allocator, which stays as it is, and asks what it must know: so a tree
// grows by one course.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "vram/experience.h"

namespace steelyard::vram {

class Rehearsal {
 public:
  Rehearsal(Tree& tree, Witness& witness, const CachingAllocator::Implementation& allocator);
  void run();

 private:
  struct Piece {  // of a touched block
    std::int64_t size = 0;
    Location at{};
    std::int32_t area = 0;
    std::int32_t previous = -1, next = -1;  // side by side
    PoolKind pool = PoolKind::large;
    int stream = 0;
    bool used = false, gone = false;
  };
  struct Area {                         // pieces side by side; solid at both ends
    std::vector<std::int32_t> anchors;  // by address
    bool whole = false;                 // was one free block
  };
  enum class ValueKind : std::uint8_t { before, nothing, empty, piece };
  struct Value {  // of a variable
    ValueKind kind = ValueKind::before;
    facts::VramCategory category = facts::VramCategory::temporaries;
    std::int32_t of = 0;  // the piece; the variable whose value of before the script it has
    bool alive = false;   // of before: known to be
    bool left = false;    // what it was before has gone elsewhere
  };
  struct Range {  // of sizes, that no untouched free block has
    PoolKind pool = PoolKind::large;
    int stream = 0;
    std::int64_t from = 0, to = 0;
    Location below{};  // if any: none with a lower address than that has; then `from` is `to`
  };

  [[nodiscard]] bool play(const Act& act);  // false: this course cannot be rehearsed
  [[nodiscard]] bool allocate(const Act& act);
  [[nodiscard]] bool free(std::int32_t variable);
  [[nodiscard]] bool keep(const Act& act);
  [[nodiscard]] bool is_alive(std::int32_t variable);
  [[nodiscard]] bool release(std::int32_t source);
  [[nodiscard]] std::int32_t best_piece(PoolKind pool, int stream, std::int64_t size);
  [[nodiscard]] bool lies_lower(const Piece& one, const Piece& other);
  [[nodiscard]] std::int32_t piece_for(PoolKind pool, int stream, std::int64_t size);
  [[nodiscard]] std::int32_t new_piece(const Piece& piece);
  void use(std::int32_t index, std::int64_t size);
  void give_back(std::int32_t index);
  void merge(std::int32_t lower, std::int32_t upper);
  void join(std::int32_t lower, std::int32_t upper);
  [[nodiscard]] std::int32_t beside(std::int64_t answer, bool before, const Piece& freed);
  void note_birth(const Act& act, std::int64_t size);
  void lose(facts::VramCategory category, std::int64_t size);
  [[nodiscard]] bool known_best(const Piece& piece, std::int64_t wanted) const;
  void learn_empty(PoolKind pool, int stream, std::int64_t from, std::int64_t to);
  void learn_lowest(const Piece& piece);
  [[nodiscard]] Reply ask(const Question& question);
  void end(QuestionKind how);
  [[nodiscard]] Outcome outcome();
  void add_areas(Outcome& result, std::vector<std::int32_t>& part_of);
  [[nodiscard]] Value take(std::int32_t variable);
  void give(std::int32_t variable, const Value& value);
  [[nodiscard]] Value& value(std::int32_t variable) {
    return values_[static_cast<std::size_t>(variable)];
  }
  [[nodiscard]] Piece& piece(std::int32_t index) {
    return pieces_[static_cast<std::size_t>(index)];
  }

  Tree& tree_;
  Witness& witness_;
  const CachingAllocator::Implementation& allocator_;
  std::int32_t at_ = 0;  // in the tree
  std::vector<Piece> pieces_;
  std::vector<std::int32_t> free_;  // pieces, in no order
  std::vector<Area> areas_;
  std::int32_t anchors_ = 0;
  std::vector<std::int32_t> area_of_;  // by anchor
  std::vector<Range> empty_;
  std::vector<std::pair<std::int32_t, std::int32_t>> ascending_;  // anchors whose order is known
  std::size_t looked_at_ = 0, most_to_look_at_ = 0;               // free pieces and known orders
  std::vector<Value> values_;
  std::int64_t allocated_ = 0;
  Outcome result_;
};

}  // namespace steelyard::vram
