// Plays a program's allocations through the caching allocator and keeps the fullest moment.
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/fingerprint.h"
#include "step/expand.h"
#include "vram/allocators.h"
#include "vram/experience.h"
#include "vram/homes.h"
#include "vram/live.h"
#include "vram/peak_tensors.h"
#include "vram/pool.h"
#include "vram/prompter.h"
#include "vram/standing.h"
#include "vram/turns.h"
#include "vram/vram.h"
#include "vram/waiting_blocks.h"

namespace steelyard::vram {

namespace {

using facts::VramBytes;
using facts::VramCategory;
using step::EventKind;

// Two steps: the second meets the free lists that the first one left, as all later ones do.
constexpr int kSteps = 2;

class Replay {
 public:
  Replay(const Request& request, Experience& experience)
      : program_(*request.program),
        device_(*request.device),
        request_(request),
        timeline_(request.timeline),
        expand_all_(request.expand_all),
        allocator_(allocator_of(request)),
        homes_(homes_of(program_)),
        tracks_(tracks_of(program_, homes_)),
        lives_(allocations_in(program_, homes_)),
        standing_(program_, homes_),
        prompter_(program_, tracks_, experience, blocks_of(request, *allocator_)),
        waiting_(*allocator_, program_.units_in_flight) {
    const bool own = request.habits.kind == facts::AllocatorKind::caching;  // PyTorch's alone
    workspaces_.resize(own ? static_cast<std::size_t>(device_.gemm_handles) : 0);
  }

  // Also follows every tensor, and remembers those alive when so many have been allocated.
  void watch(PeakTensors& tensors, std::int64_t births) {
    prompter_.forget();
    tensors_ = &tensors;
    remembered_at_ = births;
  }
  // The number of births at the peak.
  [[nodiscard]] std::int64_t births_at_peak() const { return births_at_peak_; }

  Answer run();

 private:
  void play(const std::vector<step::Pass>& passes, step::Progress& progress);
  void play(const step::Pass& pass, step::Progress& progress);
  void play(const step::Phase& phase, const step::Body& body, const step::Instance& instance);
  void play(const step::Event& event, const step::Instance& instance);
  void keep_gradient(const step::Gradient& gradient, const step::Instance& instance);
  void play_step(bool first);
  void take_length();
  [[nodiscard]] std::uint64_t state(const step::Progress& progress);
  void allocate(std::int32_t slot, std::size_t at);
  void release(std::int32_t slot, std::size_t at);
  void note_peak(std::int32_t name);
  void hold(Bytes bytes);
  void hold_workspace(const step::Phase& phase);
  [[nodiscard]] std::size_t handle_of(const step::Phase& phase) const {
    const std::size_t thread = phase.kind == step::PhaseKind::backward ? 1 : 0;
    return std::min(thread, workspaces_.size() - 1);
  }
  [[nodiscard]] bool makes_workspace(const step::Phase& phase) const {
    return !workspaces_.empty() && !workspaces_[handle_of(phase)];
  }
  void remember();
  [[nodiscard]] const Track& track(std::int32_t slot) const {
    return (shorter_ ? *shorter_ : tracks_)[static_cast<std::size_t>(slot)];
  }
  [[nodiscard]] std::size_t index_of(std::int32_t slot, const step::Instance& instance) const {
    return track(slot).at(instance);
  }
  void follow(const step::Event& event, std::size_t at);
  [[nodiscard]] bool recalls(const step::Phase& phase, const Prompter::Known& body,
                             const step::Instance& instance);
  void note_outcome(const Outcome& outcome, std::int32_t name);
  [[nodiscard]] bool stopped() const {
    return request_.stops != nullptr && request_.stops->load(std::memory_order_relaxed);
  }
  [[nodiscard]] BlockId take(Bytes bytes, int stream);
  [[nodiscard]] Bytes beside_the_pool() const;
  [[nodiscard]] VramBytes on_the_device(VramBytes tensors) const;

  const step::Program& program_;
  const facts::DeviceMemoryConstants& device_;
  const Request& request_;
  bool timeline_;
  bool expand_all_;
  std::unique_ptr<Allocator> allocator_;
  int growths_ = 0;
  bool states_made_ = false;                   // of the optimizer
  const std::vector<Home> homes_;              // by slot
  const std::vector<Track> tracks_;            // by slot
  std::optional<std::vector<Track>> shorter_;  // instead of them
  std::size_t lengths_taken_ = 0;
  std::vector<Live> lives_;
  Standing standing_;
  Prompter prompter_;
  Live carried_;
  WaitingBlocks waiting_;
  VramBytes live_;
  Bytes managed_;  // live outside of the allocator

  std::vector<bool> workspaces_;  // by handle of the matrix library: made already

  std::optional<Bytes> steady_;
  Bytes peak_, reserved_peak_;
  Bytes held_, held_then_;          // by libraries; at the peak
  Bytes fullest_, allocated_then_;  // managed memory included; the allocator's part of it
  Bytes managed_then_;              // the other part
  VramBytes at_peak_;
  Place fullest_at_, now_;
  std::int64_t births_ = 0, births_at_peak_ = 0, remembered_at_ = -1;
  PeakTensors* tensors_ = nullptr;

  Bytes moment_peak_;
  VramBytes moment_;
  std::int32_t moment_name_ = -1;
  std::vector<facts::Moment> moments_;
};

// Before PyTorch gives up it waits for the streams that hold freed blocks (release_cached_blocks
// begins with synchronize_and_free_events). Out of memory ends a real job; here the card grows by
// what was missing, and by more for a job that is far too large: a card that is always full never
// comes to a state that it has been in.
BlockId Replay::take(Bytes bytes, int stream) {
  if (const auto block = allocator_->try_allocate(bytes, stream)) return *block;
  if (waiting_.finish()) {
    if (const auto block = allocator_->try_device(bytes, stream)) return *block;
  }
  if (request_.stops != nullptr) request_.stops->store(true, std::memory_order_relaxed);
  constexpr int kGrowths = 16;
  constexpr std::int64_t kPart = 64;
  const bool far = ++growths_ > kGrowths;
  return allocator_->allocate_beyond(bytes, stream,
                                     far ? ceil_divide(allocator_->reserved(), kPart) : Bytes());
}

void Replay::allocate(std::int32_t slot, std::size_t at) {
  const Track& wanted = track(slot);
  Live& live = lives_[at];
  live.alive = true;
  if (tensors_ != nullptr) {
    Place place = now_;
    place.name = wanted.name;
    tensors_->born(at, slot, place);
  }
  live.category = wanted.category;
  if (wanted.managed) {
    live.bytes = wanted.bytes;
    managed_ += live.bytes;
  } else {
    const Bytes before = allocator_->allocated();
    live.block = take(wanted.bytes, static_cast<int>(wanted.stream));
    live.bytes = allocator_->allocated() - before;
  }
  live_[live.category] += live.bytes;
  note_peak(wanted.name);
}

void Replay::release(std::int32_t slot, std::size_t at) {
  if (tensors_ != nullptr) tensors_->died(at, now_);
  const Track& made = track(slot);
  Live& live = lives_[at];
  live_[live.category] -= live.bytes;
  if (live.block != 0 && made.recorded) {
    waiting_.retire(live.block, made.stream);
  } else if (live.block != 0) {
    allocator_->free(live.block);
  } else if (made.managed) {
    managed_ -= live.bytes;
  }
  live = Live();
}

// Tensors, and what lies around them: cached segments, context, NCCL.
VramBytes Replay::on_the_device(VramBytes tensors) const {
  tensors[VramCategory::allocator] = allocator_->reserved() - allocator_->allocated();
  tensors[VramCategory::runtime] += device_.context;
  tensors[VramCategory::communication] += device_.collectives(program_.communicators);
  tensors[VramCategory::optimizer] -= paged_out(tensors.total(), managed_, request_.capacity);
  return tensors;
}

void Replay::remember() {
  for (std::size_t i = 0; i < lives_.size(); ++i) {
    if (lives_[i].alive) tensors_->remember(i, lives_[i].bytes, lives_[i].category);
  }
  if (carried_.alive) tensors_->remember(PeakTensors::kCarried, carried_.bytes, carried_.category);
}

void Replay::note_peak(std::int32_t name) {
  const Bytes allocated = allocator_->allocated();
  now_.name = name;
  if (++births_ == remembered_at_) remember();
  reserved_peak_ = std::max(reserved_peak_, allocator_->reserved());
  if (timeline_ && allocated > moment_peak_) {
    moment_peak_ = allocated;
    moment_ = on_the_device(live_);
    moment_name_ = now_.name;
  }
  peak_ = std::max(peak_, allocated);
  // The last of equal moments: in later steps the optimizer's states are there from the start.
  if (allocated + managed_ < fullest_) return;
  fullest_ = allocated + managed_;
  allocated_then_ = allocated;
  managed_then_ = managed_;
  held_then_ = held_;
  at_peak_ = live_;
  fullest_at_ = now_;
  births_at_peak_ = births_;
}

// The fresh tensor is handed over; where one is kept already, it was added to that and dies.
void Replay::keep_gradient(const step::Gradient& gradient, const step::Instance& instance) {
  const std::size_t from = index_of(gradient.fresh, instance);
  const std::size_t to = index_of(gradient.kept, instance);
  if (lives_[to].alive) {
    release(gradient.fresh, from);
    return;
  }
  if (tensors_ != nullptr) tensors_->moved(from, to);
  Live& fresh = lives_[from];
  const VramCategory kept = track(gradient.kept).category;
  live_[fresh.category] -= fresh.bytes;
  live_[kept] += fresh.bytes;
  fresh.category = kept;
  lives_[to] = std::exchange(fresh, Live());
}

// A library's own memory out of the allocator, never given back.
void Replay::hold(Bytes bytes) {
  const BlockId block = take(bytes, 0);
  const Bytes held = block == 0 ? Bytes() : allocator_->size_of(block);
  live_[VramCategory::runtime] += held;
  held_ += held;
}

// cuBLAS's workspace is made at the first product of its thread, among what lies in the allocator
// then, and kept for ever: forward and optimizer run in one thread, backward in autograd's.
void Replay::hold_workspace(const step::Phase& phase) {
  if (!makes_workspace(phase)) return;
  workspaces_[handle_of(phase)] = true;
  hold(device_.gemm_workspace);
}

// Tensors that change their name keep their birth.
void Replay::follow(const step::Event& event, std::size_t at) {
  if (event.kind == EventKind::adopt) tensors_->moved(PeakTensors::kCarried, at);
  if (event.kind == EventKind::carry) tensors_->moved(at, PeakTensors::kCarried);
}

void Replay::play(const step::Event& event, const step::Instance& instance) {
  const std::size_t at = index_of(event.index, instance);
  if (tensors_ != nullptr) follow(event, at);
  switch (event.kind) {
    case EventKind::allocate: allocate(event.index, at); break;
    case EventKind::release_shared:
    case EventKind::free: release(event.index, at); break;
    case EventKind::adopt: lives_[at] = std::exchange(carried_, Live()); break;
    case EventKind::carry: carried_ = std::exchange(lives_[at], Live()); break;
    case EventKind::ensure:
      if (!lives_[at].alive) allocate(event.index, at);
      break;
    case EventKind::release_cached: allocator_->empty_cache(); break;
    case EventKind::keep_gradient:
    case EventKind::work:
    case EventKind::communicate: break;
  }
}

void Replay::play(const step::Phase& phase, const step::Body& body,
                  const step::Instance& instance) {
  now_ = {&phase, &body, instance.layer(), -1};
  waiting_.begin(phase.kind);
  standing_.touch(instance.micro_batch());
  moment_peak_ = allocator_->allocated();
  moment_name_ = -1;
  if (timeline_) moment_ = on_the_device(live_);
  const Prompter::Known& known = prompter_.known(body);
  if (recalls(phase, known, instance)) return;
  for (const step::Event& event : tensors_ != nullptr ? body.events : known.events) {
    if (event.kind == EventKind::communicate) continue;
    if (event.kind == EventKind::keep_gradient) {
      keep_gradient(program_.gradients[static_cast<std::size_t>(event.index)], instance);
      continue;
    }
    if (event.kind == EventKind::release_shared && instance.layer() > 0) continue;
    if (event.kind == EventKind::work) {
      const step::Work& work = program_.work[static_cast<std::size_t>(event.index)];
      now_.name = work.name;
      if (work.kind != step::WorkKind::gemm) continue;
      hold_workspace(phase);
      continue;
    }
    play(event, instance);
  }
  if (timeline_) {
    const std::string operation =
        moment_name_ < 0 ? "" : program_.names[static_cast<std::size_t>(moment_name_)];
    moments_.push_back(
        {step::name_of(phase.kind), layer_text(body, instance.layer()), operation, moment_});
  }
}

void Replay::play(const std::vector<step::Pass>& passes, step::Progress& progress) {
  for (const step::Pass& pass : passes) play(pass, progress);
}

// True where the layer need not be played: it goes as one that was.
bool Replay::recalls(const step::Phase& phase, const Prompter::Known& body,
                     const step::Instance& instance) {
  const Prompter::Layer& layer = body.layer(instance);
  if (shorter_ || layer.tree == nullptr || (body.multiplies && makes_workspace(phase)))
    return false;
  const Players players(lives_, carried_, tracks_, layer.script.slots, instance);
  const Outcome* outcome = prompter_.outcome(layer, players);
  if (outcome == nullptr) return false;
  const auto fullest = static_cast<std::size_t>(outcome->variable_at_peak);
  if (outcome->births > 0) note_outcome(*outcome, track(layer.script.slots[fullest]).name);
  live_ = sum_of(live_, outcome->by_category);
  prompter_.apply(*outcome, players);
  return true;
}

// As note_peak with every birth of the outcome; it takes nothing from the device.
void Replay::note_outcome(const Outcome& outcome, std::int32_t name) {
  reserved_peak_ = std::max(reserved_peak_, allocator_->reserved());
  const Bytes allocated = allocator_->allocated() + Bytes(outcome.allocated_at_peak);
  const std::int64_t births = births_ + outcome.births_at_peak;
  births_ += outcome.births;
  peak_ = std::max(peak_, allocated);
  if (allocated + managed_ < fullest_) return;
  fullest_ = allocated + managed_;
  allocated_then_ = allocated;
  managed_then_ = managed_;
  held_then_ = held_;
  at_peak_ = sum_of(live_, outcome.at_peak);
  fullest_at_ = now_;
  fullest_at_.name = name;
  births_at_peak_ = births;
}

// What lies where, and which blocks wait for a stream.
std::uint64_t Replay::state(const step::Progress& progress) {
  Fingerprint print;
  print.add(static_cast<std::int64_t>(standing_.print(lives_, *allocator_, progress)));
  waiting_.add_to(print);
  return print.value();
}

// Micro-batches that meet a state seen before go as then: whole rounds of them are left out.
void Replay::play(const step::Pass& pass, step::Progress& progress) {
  std::unordered_map<std::uint64_t, std::int64_t> seen;  // state -> micro-batches left then
  std::int64_t left = pass.repeat;
  while (left > 0 && !stopped()) {
    // Stages of a pipeline have several micro-batches in flight: there a step has one length.
    const bool alone = program_.in_flight == 1;
    if (left < pass.repeat && alone) take_length();
    if (!expand_all_ && !(shorter_ && alone) && pass.repeat > 2) {
      const auto [met, fresh] = seen.try_emplace(state(progress), left);
      if (!fresh) {
        left %= met->second - left;
        seen.clear();
        if (left == 0) return;
      }
    }
    step::expand_once(program_, pass, progress,
                      [this](const step::Phase& phase, const step::Body& body,
                             const step::Instance& instance) { play(phase, body, instance); });
    --left;
  }
}

// Samples of the next length, or from here on the longest.
void Replay::take_length() {
  const std::vector<std::vector<Bytes>>& lengths = program_.shorter_steps;
  if (lengths_taken_ == lengths.size()) return shorter_.reset();
  shorter_ = resized(tracks_, lengths[lengths_taken_++]);
}

void Replay::play_step(bool first) {
  take_length();
  moments_.clear();
  step::Progress progress;
  step::for_each_pass(program_, [&](const step::Pass& pass) {
    // Every update of a policy begins with micro-batch 0, as a step does.
    const step::Repeated& updates = program_.updates;
    if (updates.times > 1 && &pass == &program_.step[updates.begin]) progress = {};
    const step::PhaseKind kind = pass.phases.front().kind;
    const bool makes_states = first && kind == step::PhaseKind::optimizer;
    if (makes_states && !std::exchange(states_made_, true))
      play(program_.first_optimizer, progress);
    if (program_.gradients_outlive_step && kind == step::PhaseKind::zero_grad) {
      steady_ = allocator_->allocated();
    }
    play(pass, progress);
  });
  waiting_.finish();
}

// The context; where a pool was too small, all that a card with one that suffices has besides.
Bytes Replay::beside_the_pool() const {
  const bool pool = request_.habits.kind == facts::AllocatorKind::bfc && request_.capacity;
  if (!pool || growths_ == 0) return device_.context;
  const Bytes sent = device_.collectives(program_.communicators);
  return beside_pool(reserved_peak_, device_.context + sent, request_.habits, device_) - sent;
}

Answer Replay::run() {
  // Of an engine's own products: from the allocator, kept for ever.
  for (std::int64_t i = 0; i < device_.engine_workspaces; ++i) hold(device_.engine_workspace);
  Answer answer;
  step::Progress before;
  play(program_.setup, before);
  bool first = true;
  // What they leave in the cache is too small for the longest samples, which come later.
  while (lengths_taken_ < program_.shorter_steps.size()) play_step(std::exchange(first, false));
  // What is alive at the peak of the last step may die in the next one.
  const int steps = tensors_ != nullptr ? kSteps + 1 : kSteps;
  for (int i = 0; i < steps; ++i) play_step(std::exchange(first, false));
  facts::RankMemory& memory = answer.memory;
  memory.kind = "data-parallel rank";
  memory.ranks = program_.ranks;
  memory.peak_allocated = peak_;
  memory.steady_allocated = steady_.value_or(allocator_->allocated());
  memory.peak_reserved = reserved_peak_;
  memory.by_category = at_peak_;
  memory.by_category[VramCategory::allocator] = reserved_peak_ - allocated_then_;
  memory.context = beside_the_pool();
  memory.collectives = device_.collectives(program_.communicators);
  memory.communicators = program_.communicators;
  memory.device_source = device_.source;
  memory.by_category[VramCategory::runtime] += memory.context;
  memory.by_category[VramCategory::communication] += memory.collectives;
  memory.paged_out = paged_out(memory.by_category.total(), managed_then_, request_.capacity);
  memory.by_category[VramCategory::optimizer] -= memory.paged_out;
  memory.peak_device_used = memory.by_category.total();
  memory.peak_at = described(program_, fullest_at_);
  answer.timeline = std::move(moments_);
  answer.workspaces = held_then_;
  answer.played = births_;
  return answer;
}

}  // namespace

Answer replay(const Request& request, Experience& experience) {
  Replay once(request, experience);
  Answer answer = once.run();
  if (request.tensors) {
    PeakTensors tensors(*request.program);
    Replay again(request, experience);
    again.watch(tensors, once.births_at_peak());
    again.run();
    answer.tensors = tensors.groups();
  }
  return answer;
}

Answer replay(const Request& request) {
  Experience experience;
  return replay(request, experience);
}

}  // namespace steelyard::vram
