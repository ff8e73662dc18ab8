#include "vram/experience.h"

#include <algorithm>
#include <array>

namespace steelyard::vram {

Tree& Experience::tree_of(const Script& script) {
  std::vector<std::unique_ptr<Tree>>& alike = trees_[script.fingerprint()];
  for (const std::unique_ptr<Tree>& tree : alike) {
    if (tree->acts == script.acts) return *tree;
  }
  alike.push_back(std::make_unique<Tree>(script.acts));
  return *alike.back();
}

Reply Witness::answer(const Question& question) {
  switch (question.kind) {
    case QuestionKind::fits: return fits(question);
    case QuestionKind::lower:
      return {address_of(question.piece) < address_of(question.other) ? 1 : 0};
    case QuestionKind::freed: return freed(players_.of(question.variable));
    case QuestionKind::alive: return {players_.of(question.variable).alive ? 1 : 0};
    case QuestionKind::unknown:
    case QuestionKind::outcome:
    case QuestionKind::unfit: break;
  }
  return {};
}

Reply Witness::fits(const Question& question) {
  const blocks::FreeSet& free = allocator_.free_blocks(question.pool);
  auto best = free.from(question.stream, question.size);
  while (best != free.end() && anchors_.of(best->block) >= 0) ++best;
  const bool block = best != free.end() && best->stream() == question.stream;
  if (question.piece_size > 0) {
    if (!block || best->size() > question.piece_size) return {Reply::kPiece};
    const bool equal = best->size() == question.piece_size;
    if (equal && address_of(question.piece) < best->address) return {Reply::kPieceOfEqual};
  }
  if (!block) return {Reply::kNothing};
  anchors_.add(best->block);
  return {Reply::kBlock, best->size()};
}

Reply Witness::freed(const Live& live) {
  if (!live.alive) return {Reply::kNoBlock};
  if (live.block == 0) return {live.bytes == Bytes() ? Reply::kNoBlock : Reply::kForeign};
  const auto index = static_cast<Index>(live.block - 1);
  const Block& block = allocator_.block(index);
  if (live.bytes.value() != block.size) return {Reply::kForeign};
  anchors_.add(index);
  const std::int64_t kind = static_cast<std::int64_t>(block.pool) +
                            (std::int64_t{block.stream} << 8) +
                            (static_cast<std::int64_t>(live.category) << 16);
  const std::int64_t before = neighbour(block.previous);
  return {block.size, kind, before, neighbour(block.next)};
}

std::int64_t Witness::neighbour(Index block) {
  if (block == kNone) return Reply::kSolid;
  if (const std::int32_t anchor = anchors_.of(block); anchor >= 0) return -1 - anchor;
  if (allocator_.block(block).used) return Reply::kSolid;
  anchors_.add(block);
  return allocator_.block(block).size;
}

Recalled recall(const Tree& tree, Witness& witness) {
  std::int32_t at = 0;
  while (at >= 0) {
    const Question& question = tree.nodes[static_cast<std::size_t>(at)].question;
    switch (question.kind) {
      case QuestionKind::unknown: return {nullptr, true};
      case QuestionKind::unfit: return {nullptr, false};
      case QuestionKind::outcome:
        return {&tree.outcomes[static_cast<std::size_t>(question.variable)], false};
      default: at = tree.after(at, witness.answer(question));
    }
  }
  return {nullptr, true};
}

void Stagehand::apply(const Outcome& outcome, const Anchors& anchors, const Players& players,
                      CachingAllocator::Implementation& allocator) {
  made_.resize(outcome.parts.size());
  for (const Outcome::Area& area : outcome.areas) {
    old_.clear();
    for (std::uint32_t i = 0; i < area.anchors; ++i) {
      old_.push_back(anchors.block(outcome.anchors[area.first_anchor + i]));
    }
    allocator.rewrite(old_, outcome.parts.data() + area.first_part, area.parts,
                      made_.data() + area.first_part);
  }
  others_.clear();
  for (const Outcome::Change& change : outcome.changes) {
    if (change.becomes == Outcome::Becomes::another) others_.push_back(players.of(change.from));
  }
  std::size_t next = 0;
  for (const Outcome::Change& change : outcome.changes) {
    Live& live = players.of(change.variable);
    switch (change.becomes) {
      case Outcome::Becomes::nothing: live = Live(); break;
      case Outcome::Becomes::empty: live = {true, change.category, 0, Bytes()}; break;
      case Outcome::Becomes::another: live = others_[next++]; break;
      case Outcome::Becomes::part: {
        const auto part = static_cast<std::size_t>(change.from);
        live = {true, change.category, BlockId{made_[part]} + 1, Bytes(outcome.parts[part].size)};
      }
    }
  }
}

}  // namespace steelyard::vram
