#include "pace/pieces.h"

#include <algorithm>

namespace steelyard::pace {
namespace {

using step::EventKind;

// `added` among all that is beside the work and of that kind, by length.
void share(std::vector<Piece>& pieces, EventKind kind, Seconds all, Seconds added) {
  if (!(all > Seconds())) return;
  for (Piece& piece : pieces) {
    if (piece.beside && piece.kind == kind) piece.step = added * (piece.busy / all).value();
  }
}

}  // namespace

std::vector<Piece> pieces_of(const step::Body& body, const step::Phase& of,
                             const step::Program& program, const Prices& prices) {
  const step::PhaseKind phase = of.kind;
  std::vector<Piece> pieces;
  const double gathered_share = exposed_gathers(program, prices);
  const double exchanged = exposed_exchanges(body, program, prices);
  const double border_share = exposed_at_borders(of, program, prices);
  Seconds working, exposed;
  BesideWork sending, crossing;
  Beside host;
  for (const step::Event& event : body.events) {
    const auto index = static_cast<std::size_t>(event.index);
    Piece piece;
    piece.kind = event.kind;
    piece.index = event.index;
    if (event.kind == EventKind::work) {
      const step::Work& work = program.work[index];
      piece.busy = prices.work[index].seconds;
      piece.beside = on_the_host(work.kind) && !waits_for(work, phase);
      if (on_the_host(work.kind)) {
        host.add(work, phase, piece.busy);
      } else {
        working += piece.busy;
      }
    } else if (event.kind == EventKind::communicate) {
      piece.busy = prices.communication[index];
      piece.beside = program.communication[index].overlaps;
      if (crosses_border(body, program.communication[index])) {
        crossing.add(prices, index);
      } else if (piece.beside) {
        sending.add(prices, index);
      } else if (gathered_ahead(phase, program.communication[index], prices) ||
                 beside_shared_experts(event.index, program, prices)) {
        const bool ahead = gathered_ahead(phase, program.communication[index], prices);
        piece.step = piece.busy * (ahead ? gathered_share : exchanged);
        exposed += piece.step;
        pieces.push_back(piece);
        continue;
      } else {
        exposed += piece.busy;
      }
    } else {
      continue;
    }
    if (!piece.beside) piece.step = piece.busy;
    pieces.push_back(piece);
  }
  const Seconds added = sending.added_to(working);
  // A body has no work and crosses a border, or has some: never both.
  share(pieces, EventKind::communicate, crossing.length, crossing.length * border_share);
  share(pieces, EventKind::communicate, sending.length, added);
  // Copies and the drive run side by side: the step is longer for whichever lasts longer.
  share(pieces, EventKind::work, host.copying + host.swapping,
        host.outlasting(working + exposed + added));
  return pieces;
}

Seconds total_of(const std::vector<Piece>& pieces) {
  Seconds total;
  for (const Piece& piece : pieces) total += piece.step;
  return total;
}

}  // namespace steelyard::pace
