#include "vram/rehearsal.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace steelyard::vram {

Rehearsal::Rehearsal(Tree& tree, Witness& witness,
                     const CachingAllocator::Implementation& allocator)
    : tree_(tree), witness_(witness), allocator_(allocator) {
  constexpr std::size_t kPiecesPerAct = 64;
  most_to_look_at_ = kPiecesPerAct * tree.acts.size();
  std::int32_t most = 0;
  for (const Act& act : tree.acts) most = std::max({most, act.variable, act.kept});
  values_.resize(static_cast<std::size_t>(most) + 1);
  for (std::size_t i = 0; i < values_.size(); ++i) values_[i].of = static_cast<std::int32_t>(i);
}

void Rehearsal::run() {
  for (const Act& act : tree_.acts) {
    if (!play(act)) return end(QuestionKind::unfit);
  }
  end(QuestionKind::outcome);
}

// --- The tree
Reply Rehearsal::ask(const Question& question) {
  Question& here = tree_.nodes[static_cast<std::size_t>(at_)].question;
  assert(here.kind == QuestionKind::unknown || here.kind == question.kind);
  here = question;
  const Reply answer = witness_.answer(question);
  std::int32_t next = tree_.after(at_, answer);
  if (next < 0) {
    next = static_cast<std::int32_t>(tree_.nodes.size());
    tree_.nodes.emplace_back();
    tree_.nodes[static_cast<std::size_t>(at_)].next.emplace_back(answer, next);
  }
  at_ = next;
  return answer;
}

void Rehearsal::end(QuestionKind how) {
  Question& here = tree_.nodes[static_cast<std::size_t>(at_)].question;
  assert(here.kind == QuestionKind::unknown || here.kind == how);
  here.kind = how;
  if (how != QuestionKind::outcome) return;
  here.variable = static_cast<std::int32_t>(tree_.outcomes.size());
  tree_.outcomes.push_back(outcome());
}

// --- Acts
Rehearsal::Value Rehearsal::take(std::int32_t variable) {
  Value& its = value(variable);
  Value taken = its;
  its = {ValueKind::nothing};
  its.left = taken.left || taken.kind == ValueKind::before;
  taken.left = false;
  return taken;
}

void Rehearsal::give(std::int32_t variable, const Value& given) {
  Value& its = value(variable);
  const bool left = its.left;
  its = given;
  its.left = left;
}

bool Rehearsal::play(const Act& act) {
  switch (act.kind) {
    case ActKind::allocate: return allocate(act);
    case ActKind::free: return free(act.variable);
    case ActKind::adopt: give(act.variable, take(Script::kCarried)); return true;
    case ActKind::carry: give(Script::kCarried, take(act.variable)); return true;
    case ActKind::ensure: return is_alive(act.variable) || allocate(act);
    case ActKind::keep_gradient: return keep(act);
  }
  return false;
}

bool Rehearsal::is_alive(std::int32_t variable) {
  Value& its = value(variable);
  if (its.kind != ValueKind::before || its.alive) return its.kind != ValueKind::nothing;
  Question question;
  question.kind = QuestionKind::alive;
  question.variable = its.of;
  its.alive = ask(question).first != 0;
  if (!its.alive) its.kind = ValueKind::nothing;
  return its.alive;
}

bool Rehearsal::keep(const Act& act) {
  if (is_alive(act.kept)) return free(act.variable);
  Value fresh = take(act.variable);
  if (fresh.kind != ValueKind::piece) return false;
  const Bytes bytes(piece(fresh.of).size);
  result_.by_category[fresh.category] -= bytes;
  result_.by_category[act.category] += bytes;
  fresh.category = act.category;
  give(act.kept, fresh);
  return true;
}

bool Rehearsal::allocate(const Act& act) {
  if (act.bytes == 0) {
    give(act.variable, {ValueKind::empty, act.category});
    note_birth(act, 0);
    return true;
  }
  const std::int64_t size = allocator_.rounded(act.bytes);
  const PoolKind pool = CachingAllocator::Implementation::pool_for(size);
  const std::int32_t found = piece_for(pool, static_cast<int>(act.stream), size);
  if (found < 0) return false;
  use(found, size);
  give(act.variable, {ValueKind::piece, act.category, found});
  note_birth(act, piece(found).size);
  return true;
}

bool Rehearsal::free(std::int32_t variable) {
  const Value its = take(variable);
  if (its.kind == ValueKind::before) return release(its.of);
  if (its.kind != ValueKind::piece) return true;
  lose(its.category, piece(its.of).size);
  give_back(its.of);
  return true;
}

// A block of before the script.
bool Rehearsal::release(std::int32_t source) {
  Question question;
  question.kind = QuestionKind::freed;
  question.variable = source;
  const Reply answer = ask(question);
  if (answer.first == Reply::kForeign) return false;
  if (answer.first == Reply::kNoBlock) return true;
  Piece freed;
  freed.size = answer.first;
  freed.at = {anchors_++, 0};
  freed.pool = static_cast<PoolKind>(answer.second & 0xff);
  freed.stream = static_cast<int>((answer.second >> 8) & 0xff);
  freed.used = true;
  freed.area = static_cast<std::int32_t>(areas_.size());
  areas_.push_back({{freed.at.anchor}, false});
  area_of_.push_back(freed.area);
  lose(static_cast<facts::VramCategory>(answer.second >> 16), freed.size);
  const std::int32_t index = new_piece(freed);
  const std::int32_t before = beside(answer.before, true, freed);
  const std::int32_t behind = beside(answer.behind, false, freed);
  if (before >= 0) join(before, index);
  if (behind >= 0) join(index, behind);
  give_back(index);
  return true;
}

// The piece at that end of the freed block.
std::int32_t Rehearsal::beside(std::int64_t answer, bool before, const Piece& freed) {
  if (answer == Reply::kSolid) return -1;
  if (answer > 0) {
    Piece block;
    block.size = answer;
    block.at = {anchors_++, 0};
    block.pool = freed.pool;
    block.stream = freed.stream;
    block.area = static_cast<std::int32_t>(areas_.size());
    areas_.push_back({{block.at.anchor}, true});
    area_of_.push_back(block.area);
    const std::int32_t index = new_piece(block);
    free_.push_back(index);
    return index;
  }
  const std::int32_t area = area_of_[static_cast<std::size_t>(-1 - answer)];
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    const Piece& each = pieces_[i];
    if (!each.gone && each.area == area && (before ? each.next : each.previous) < 0) {
      return static_cast<std::int32_t>(i);
    }
  }
  assert(false);
  return -1;
}

// --- Pieces
std::int32_t Rehearsal::new_piece(const Piece& piece) {
  pieces_.push_back(piece);
  return static_cast<std::int32_t>(pieces_.size()) - 1;
}

// Two areas become one; what lies side by side is not merged yet.
void Rehearsal::join(std::int32_t lower, std::int32_t upper) {
  piece(lower).next = upper;
  piece(upper).previous = lower;
  const std::int32_t into = piece(lower).area;
  const std::int32_t from = piece(upper).area;
  Area& area = areas_[static_cast<std::size_t>(into)];
  Area& other = areas_[static_cast<std::size_t>(from)];
  area.anchors.insert(area.anchors.end(), other.anchors.begin(), other.anchors.end());
  area.whole = false;
  for (const std::int32_t anchor : other.anchors) area_of_[static_cast<std::size_t>(anchor)] = into;
  other.anchors.clear();
  for (Piece& each : pieces_) {
    if (each.area == from) each.area = into;
  }
}

// The best fit among the free pieces; of equal ones the lowest.
// Hundreds of experts leave thousands of free pieces: to look through them for each request takes
// longer than to play the layer as it stands, which is given up then (most_to_look_at_).
std::int32_t Rehearsal::best_piece(PoolKind pool, int stream, std::int64_t size) {
  looked_at_ += free_.size();
  std::int64_t best_size = 0;
  for (const std::int32_t index : free_) {
    const Piece& each = piece(index);
    if (each.pool != pool || each.stream != stream || each.size < size) continue;
    if (best_size == 0 || each.size < best_size) best_size = each.size;
  }
  if (best_size == 0) return -1;
  std::int32_t best = -1;
  for (const std::int32_t index : free_) {
    const Piece& each = piece(index);
    if (each.pool != pool || each.stream != stream || each.size != best_size) continue;
    if (best < 0 || lies_lower(each, piece(best))) best = index;
  }
  return best;
}

// Inside of an area it is so on every course.
bool Rehearsal::lies_lower(const Piece& one, const Piece& other) {
  if (one.area == other.area) return witness_.address_of(one.at) < witness_.address_of(other.at);
  looked_at_ += ascending_.size();
  for (const auto& [lower, upper] : ascending_) {
    const std::int32_t below = area_of_[static_cast<std::size_t>(lower)];
    const std::int32_t above = area_of_[static_cast<std::size_t>(upper)];
    if (below == one.area && above == other.area) return true;
    if (below == other.area && above == one.area) return false;
  }
  Question question;
  question.kind = QuestionKind::lower;
  question.piece = one.at;
  question.other = other.at;
  const bool lower = ask(question).first != 0;
  ascending_.emplace_back(one.at.anchor, other.at.anchor);
  if (!lower) std::swap(ascending_.back().first, ascending_.back().second);
  return lower;
}

std::int32_t Rehearsal::piece_for(PoolKind pool, int stream, std::int64_t size) {
  const std::int32_t best = best_piece(pool, stream, size);
  if (looked_at_ > most_to_look_at_) return -1;
  if (best >= 0 && known_best(piece(best), size)) return best;
  Question question;
  question.kind = QuestionKind::fits;
  question.pool = pool;
  question.stream = stream;
  question.size = size;
  if (best >= 0) {
    question.piece_size = piece(best).size;
    question.piece = piece(best).at;
  }
  const Reply answer = ask(question);
  if (answer.first == Reply::kNothing) return -1;
  if (answer.first != Reply::kBlock) {
    const bool equal = answer.first == Reply::kPieceOfEqual;
    learn_empty(pool, stream, size, piece(best).size - (equal ? 1 : 0));
    if (equal) learn_lowest(piece(best));
    return best;
  }
  learn_empty(pool, stream, size, answer.second - 1);
  Piece block;
  block.size = answer.second;
  block.at = {anchors_++, 0};
  block.pool = pool;
  block.stream = stream;
  block.area = static_cast<std::int32_t>(areas_.size());
  areas_.push_back({{block.at.anchor}, true});
  area_of_.push_back(block.area);
  for (const Range& range : empty_) {  // all that have this size lie above one that had it
    const bool alike = range.pool == pool && range.stream == stream && range.from == block.size;
    if (!alike || range.below.anchor < 0) continue;
    ascending_.emplace_back(range.below.anchor, block.at.anchor);
  }
  learn_lowest(block);  // PyTorch takes the lowest of equal ones
  const std::int32_t index = new_piece(block);
  free_.push_back(index);
  return index;
}

// The low end of a free piece is used; what it has more may stay free.
void Rehearsal::use(std::int32_t index, std::int64_t size) {
  std::erase(free_, index);
  piece(index).used = true;
  if (!allocator_.leaves_rest(piece(index).pool, piece(index).size, size)) return;
  Piece rest = piece(index);
  rest.used = false;
  rest.size -= size;
  rest.at.offset += size;
  rest.previous = index;
  const std::int32_t upper = new_piece(rest);
  if (rest.next >= 0) piece(rest.next).previous = upper;
  piece(index).next = upper;
  piece(index).size = size;
  free_.push_back(upper);
}

void Rehearsal::give_back(std::int32_t index) {
  piece(index).used = false;
  free_.push_back(index);
  const std::int32_t behind = piece(index).next;
  if (behind >= 0 && !piece(behind).used) merge(index, behind);
  const std::int32_t before = piece(index).previous;
  if (before >= 0 && !piece(before).used) merge(before, index);
}

void Rehearsal::merge(std::int32_t lower, std::int32_t upper) {
  piece(lower).size += piece(upper).size;
  piece(lower).next = piece(upper).next;
  if (piece(upper).next >= 0) piece(piece(upper).next).previous = lower;
  piece(upper).gone = true;
  std::erase(free_, upper);
}

// --- Sizes that no untouched free block has; blocks are touched, but none becomes free.
bool Rehearsal::known_best(const Piece& piece, std::int64_t wanted) const {
  std::int64_t reached = wanted;
  for (bool further = true; further && reached <= piece.size;) {
    further = false;
    for (const Range& range : empty_) {
      if (range.pool != piece.pool || range.stream != piece.stream) continue;
      if (range.from > reached || range.to < reached) continue;
      if (range.below.anchor >= 0 && (reached != piece.size || range.below != piece.at)) continue;
      reached = range.to + 1;
      further = true;
    }
  }
  return reached > piece.size;
}

void Rehearsal::learn_empty(PoolKind pool, int stream, std::int64_t from, std::int64_t to) {
  if (from <= to) empty_.push_back({pool, stream, from, to, {}});
}

void Rehearsal::learn_lowest(const Piece& piece) {
  empty_.push_back({piece.pool, piece.stream, piece.size, piece.size, piece.at});
}

// --- What comes of it
void Rehearsal::note_birth(const Act& act, std::int64_t size) {
  allocated_ += size;
  result_.by_category[act.category] += Bytes(size);
  ++result_.births;
  if (result_.births > 1 && allocated_ < result_.allocated_at_peak) return;
  result_.allocated_at_peak = allocated_;
  result_.births_at_peak = result_.births;
  result_.variable_at_peak = act.variable;
  result_.at_peak = result_.by_category;
}

void Rehearsal::lose(facts::VramCategory category, std::int64_t size) {
  allocated_ -= size;
  result_.by_category[category] -= Bytes(size);
}

void Rehearsal::add_areas(Outcome& result, std::vector<std::int32_t>& part_of) {
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    const Piece& first = pieces_[i];
    if (first.gone || first.previous >= 0) continue;
    const Area& area = areas_[static_cast<std::size_t>(first.area)];
    if (area.whole && first.next < 0 && !first.used) continue;  // as it was
    Outcome::Area made;
    made.first_anchor = static_cast<std::uint32_t>(result.anchors.size());
    made.anchors = static_cast<std::uint32_t>(area.anchors.size());
    made.first_part = static_cast<std::uint32_t>(result.parts.size());
    result.anchors.insert(result.anchors.end(), area.anchors.begin(), area.anchors.end());
    for (auto at = static_cast<std::int32_t>(i); at >= 0; at = piece(at).next) {
      part_of[static_cast<std::size_t>(at)] = static_cast<std::int32_t>(result.parts.size());
      result.parts.push_back({piece(at).size, piece(at).used});
    }
    made.parts = static_cast<std::uint32_t>(result.parts.size()) - made.first_part;
    result.areas.push_back(made);
  }
}

Outcome Rehearsal::outcome() {
  using Becomes = Outcome::Becomes;
  std::vector<std::int32_t> part_of(pieces_.size(), -1);
  add_areas(result_, part_of);
  for (std::size_t i = 0; i < values_.size(); ++i) {
    const Value& its = values_[i];
    Outcome::Change change;
    change.variable = static_cast<std::int32_t>(i);
    change.category = its.category;
    change.from = its.of;
    switch (its.kind) {
      case ValueKind::before:
        if (its.of == change.variable) continue;
        change.becomes = Becomes::another;
        break;
      case ValueKind::nothing:
        if (!its.left) continue;
        change.becomes = Becomes::nothing;
        break;
      case ValueKind::empty: change.becomes = Becomes::empty; break;
      case ValueKind::piece:
        change.becomes = Becomes::part;
        change.from = part_of[static_cast<std::size_t>(its.of)];
    }
    result_.changes.push_back(change);
  }
  return std::move(result_);
}

}  // namespace steelyard::vram
