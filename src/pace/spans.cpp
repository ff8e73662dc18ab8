#include "pace/spans.h"

#include <fmt/format.h>

#include <algorithm>

namespace steelyard::pace {
namespace {

using facts::PaceSpan;
using step::Body;
using step::EventKind;
using step::Program;

class Drawing {
 public:
  Drawing(const Program& program, const Prices& prices, double stretch)
      : program_(program), prices_(prices), stretch_(stretch) {}

  void pass(const step::Pass& pass) {
    const Seconds from = now_;
    run(pass);
    if (pass.repeat > 2) {
      const Seconds once = now_ - from;
      counted(fmt::format("{} passes like the one before", pass.repeat - 2), {}, {},
              once * static_cast<double>(pass.repeat - 2));
    }
    if (pass.repeat > 1) run(pass);
  }

  // What was drawn since `from` runs so often in all.
  void repeat(Seconds from, std::int64_t times) {
    if (times <= 1) return;
    counted(fmt::format("{} updates like the one before", times - 1), {}, {},
            (now_ - from) * static_cast<double>(times - 1));
  }
  [[nodiscard]] Seconds now() const { return now_; }

  // One that counts, for which nothing runs.
  void wait(const char* name, Seconds length) { counted(name, {}, {}, length); }

  [[nodiscard]] std::vector<PaceSpan> finished() && {
    for (PaceSpan& span : spans_) {
      span.start = span.start * stretch_;
      span.length = span.length * stretch_;
    }
    return std::move(spans_);
  }

 private:
  void run(const step::Pass& pass) {
    step::for_each_phase(pass, [this](const step::Phase& phase) {
      const Seconds from = now_;
      const std::string name = step::name_of(phase.kind);
      for (const Body& one : phase.bodies) body(one, phase, name);
      counted("waiting for launches", name, {}, waiting_for_launches(phase, program_, prices_));
      if (phase.repeat > 1) {
        counted(fmt::format("{} more like this one", phase.repeat - 1), name, {},
                (now_ - from) * static_cast<double>(phase.repeat - 1));
      }
      add({"phases", name, name, {}, from, now_ - from});
    });
  }

  void body(const Body& body, const step::Phase& phase, const std::string& phase_name) {
    const std::vector<Piece> pieces = pieces_of(body, phase, program_, prices_);
    const Seconds once = total_of(pieces);
    const auto layer = [&](std::int64_t iteration) {
      if (body.repeat == 1) return body.layer;
      return fmt::format("{} {}", body.layer,
                         body.reversed ? body.repeat - 1 - iteration : iteration);
    };
    iteration(pieces, phase_name, layer(0));
    if (body.repeat > 2) {
      const Seconds from = now_;
      const std::string name = fmt::format("{} more of {}", body.repeat - 2, body.layer);
      counted(name, phase_name, body.layer, once * static_cast<double>(body.repeat - 2));
      add({"layers", name, phase_name, body.layer, from, now_ - from});
    }
    if (body.repeat > 1) iteration(pieces, phase_name, layer(body.repeat - 1));
  }

  void iteration(const std::vector<Piece>& pieces, const std::string& phase,
                 const std::string& layer) {
    const Seconds from = now_;
    // What still runs from the iteration before goes first: on a track nothing overlaps.
    sending_ = std::max(sending_, from);
    copying_ = std::max(copying_, from);
    swapping_ = std::max(swapping_, from);
    Seconds left;
    for (const Piece& piece : pieces) {
      const std::string name = operation_of(program_, piece);
      if (!piece.beside) {
        counted(name, phase, layer, piece.step);
        continue;
      }
      const bool sent = piece.kind == EventKind::communicate;
      const bool drive =
          !sent && of_drive(program_.work[static_cast<std::size_t>(piece.index)].kind);
      Seconds& at = sent ? sending_ : drive ? swapping_ : copying_;
      add({sent    ? "communication"
           : drive ? "drive"
                   : "copies",
           name, phase, layer, at, piece.busy});
      at += piece.busy;
      left += piece.step;
    }
    counted("waiting for what runs beside", phase, layer, left);
    add({"layers", layer, phase, layer, from, now_ - from});
  }

  void counted(std::string name, std::string phase, std::string layer, Seconds length) {
    add({"GPU", std::move(name), std::move(phase), std::move(layer), now_, length, true});
    now_ += length;
  }
  void add(PaceSpan span) {
    if (span.length > Seconds()) spans_.push_back(std::move(span));
  }

  const Program& program_;
  const Prices& prices_;
  double stretch_;
  Seconds now_;
  Seconds sending_, copying_, swapping_;  // until when each track is taken
  std::vector<PaceSpan> spans_;
};

}  // namespace

std::string operation_of(const Program& program, const Piece& piece) {
  const auto index = static_cast<std::size_t>(piece.index);
  const auto name = static_cast<std::size_t>(
      piece.kind == EventKind::work ? program.work[index].name : program.communication[index].name);
  if (name >= program.names.size()) return {};
  const std::string& whole = program.names[name];
  const std::size_t colon = whole.rfind(": ");
  return colon == std::string::npos ? whole : whole.substr(colon + 2);
}

std::vector<PaceSpan> spans_of(const Program& program, const Prices& prices, Seconds bubble,
                               double stretch) {
  Drawing drawing(program, prices, stretch);
  Seconds updates;
  for (std::size_t i = 0; i < program.step.size(); ++i) {
    if (i == program.updates.begin) updates = drawing.now();
    drawing.pass(program.step[i]);
    if (i + 1 == program.updates.end) drawing.repeat(updates, program.updates.times);
  }
  drawing.wait("pipeline bubble", bubble);
  return std::move(drawing).finished();
}

}  // namespace steelyard::pace
