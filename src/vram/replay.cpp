// Plays a program's allocations through the caching allocator and keeps the fullest moment.
#include <algorithm>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/fingerprint.h"
#include "step/expand.h"
#include "vram/caching_allocator.h"
#include "vram/vram.h"

namespace steelyard::vram {

namespace {

using facts::VramBytes;
using facts::VramCategory;
using step::EventKind;

// Two steps: the second meets the free lists that the first one left, every later one does the
// same.
constexpr int kSteps = 2;

// NCCL's buffers, outside of the allocator, per communicator.
Bytes communication_bytes(const step::Program& program,
                          const facts::DeviceMemoryConstants& device) {
  if (program.communicators == 0) return {};
  const Bytes one = device.collective_per_channel * device.collective_channels + device.nvls;
  return one * program.communicators;
}

AllocatorSettings settings_of(const Request& request) {
  AllocatorSettings settings;
  if (request.capacity) {
    const Bytes outside =
        request.device->context + communication_bytes(*request.program, *request.device);
    settings.device_bytes = std::max(Bytes(), *request.capacity - outside);
  }
  return settings;
}

class Replay {
 public:
  explicit Replay(const Request& request)
      : program_(*request.program),
        device_(*request.device),
        timeline_(request.timeline),
        expand_all_(request.expand_all),
        allocator_(settings_of(request)),
        live_blocks_(program_.slots.size()) {
    find_homes();
  }

  Answer run();

 private:
  struct Live {
    bool alive = false;
    BlockId block = 0;
    Bytes bytes;  // as the allocator counts it
    VramCategory category = VramCategory::temporaries;
  };

  void play(const std::vector<step::Pass>& passes, step::Progress& progress);
  void play(const step::Pass& pass, step::Progress& progress);
  void play(const step::Phase& phase, const step::Body& body, const step::Instance& instance);
  void play(const step::Event& event, std::int64_t instance);
  void keep_gradient(const step::Gradient& gradient, const step::Instance& instance);
  void play_step(bool first);
  void find_homes();
  [[nodiscard]] std::uint64_t state(const step::Progress& progress) const;
  void allocate(std::int32_t slot, std::int64_t instance);
  void release(std::int32_t slot, std::int64_t instance);
  void note_peak(std::int32_t slot);
  [[nodiscard]] Live& at(std::int32_t slot, std::int64_t instance);
  [[nodiscard]] BlockId take(Bytes bytes, int stream);
  [[nodiscard]] VramBytes on_the_device(VramBytes tensors) const;

  const step::Program& program_;
  const facts::DeviceMemoryConstants& device_;
  bool timeline_;
  bool expand_all_;
  CachingAllocator allocator_;
  std::vector<std::vector<Live>> live_blocks_;  // by slot, then instance
  // By slot: layers of the body that allocates it, and the chunk that the body belongs to.
  struct Home {
    std::int64_t layers = 1;
    std::int32_t chunk = 0;
  };
  std::vector<Home> homes_;
  Live carried_;
  VramBytes live_;
  Bytes managed_;  // live outside of the allocator

  std::optional<Bytes> steady_;
  Bytes peak_, reserved_peak_;
  Bytes fullest_, allocated_then_;  // managed memory included; the allocator's part of it
  VramBytes at_peak_;
  facts::PeakAt peak_at_;
  const step::Phase* phase_ = nullptr;
  const step::Body* body_ = nullptr;
  std::int64_t layer_ = 0;

  Bytes moment_peak_;
  VramBytes moment_;
  std::vector<facts::Moment> moments_;
};

std::string layer_text(const step::Body& body, std::int64_t instance) {
  return body.repeat == 1 ? body.layer : body.layer + "." + std::to_string(instance);
}

Replay::Live& Replay::at(std::int32_t slot, std::int64_t instance) {
  std::vector<Live>& instances = live_blocks_[static_cast<std::size_t>(slot)];
  const auto index = static_cast<std::size_t>(instance);
  if (instances.size() <= index) instances.resize(index + 1);
  return instances[index];
}

// Out of memory ends a real job; here the card grows by what was missing.
BlockId Replay::take(Bytes bytes, int stream) {
  constexpr Bytes kSegment(
      20 << 20);  // the allocator asks the device for 20 MiB or a 2 MiB multiple
  if (const auto block = allocator_.try_allocate(bytes, stream)) return *block;
  allocator_.set_device_bytes(allocator_.reserved() +
                              round_up(std::max(bytes, kSegment), Bytes(2 << 20)));
  return allocator_.allocate(bytes, stream);
}

void Replay::allocate(std::int32_t slot, std::int64_t instance) {
  const step::Slot& wanted = program_.slots[static_cast<std::size_t>(slot)];
  Live& live = at(slot, instance);
  live.alive = true;
  live.category = wanted.category;
  if (wanted.managed) {
    live.bytes = wanted.bytes;
    managed_ += live.bytes;
    live_[live.category] += live.bytes;
    note_peak(slot);
    return;
  }
  live.block = take(wanted.bytes, static_cast<int>(wanted.stream));
  live.bytes = live.block == 0 ? Bytes() : allocator_.size_of(live.block);
  live_[live.category] += live.bytes;
  note_peak(slot);
}

void Replay::release(std::int32_t slot, std::int64_t instance) {
  Live& live = at(slot, instance);
  live_[live.category] -= live.bytes;
  if (live.block != 0) {
    allocator_.free(live.block);
  } else if (program_.slots[static_cast<std::size_t>(slot)].managed) {
    managed_ -= live.bytes;
  }
  live = Live();
}

// Tensors, and what lies around them: cached segments, context, NCCL.
VramBytes Replay::on_the_device(VramBytes tensors) const {
  tensors[VramCategory::allocator] = allocator_.reserved() - allocator_.allocated();
  tensors[VramCategory::runtime] += device_.context;
  tensors[VramCategory::communication] += communication_bytes(program_, device_);
  return tensors;
}

void Replay::note_peak(std::int32_t slot) {
  const Bytes allocated = allocator_.allocated();
  reserved_peak_ = std::max(reserved_peak_, allocator_.reserved());
  if (timeline_ && allocated > moment_peak_) {
    moment_peak_ = allocated;
    moment_ = on_the_device(live_);
  }
  peak_ = std::max(peak_, allocated);
  // The last of equal moments: in later steps the optimizer's states are there from the start.
  if (allocated + managed_ < fullest_) return;
  fullest_ = allocated + managed_;
  allocated_then_ = allocated;
  at_peak_ = live_;
  const step::Slot& made = program_.slots[static_cast<std::size_t>(slot)];
  peak_at_.phase = phase_ == nullptr ? "setup" : step::name_of(phase_->kind);
  // The optimizer works on all layers alike: where it is at the peak says nothing.
  const bool of_a_layer = body_ != nullptr && phase_->kind != step::PhaseKind::optimizer;
  peak_at_.layer = of_a_layer ? layer_text(*body_, layer_) : "";
  peak_at_.operation = program_.names[static_cast<std::size_t>(made.name)];
}

// The fresh tensor is handed over; where one is kept already, it was added to that and dies.
void Replay::keep_gradient(const step::Gradient& gradient, const step::Instance& instance) {
  const auto slot_of = [&](std::int32_t index) {
    return program_.slots[static_cast<std::size_t>(index)];
  };
  const std::int64_t from = instance.of(slot_of(gradient.fresh));
  const step::Slot& kept = slot_of(gradient.kept);
  const std::int64_t to = instance.of(kept);
  if (at(gradient.kept, to).alive) {
    release(gradient.fresh, from);
    return;
  }
  Live& fresh = at(gradient.fresh, from);
  live_[fresh.category] -= fresh.bytes;
  live_[kept.category] += fresh.bytes;
  fresh.category = kept.category;
  const Live moved = std::exchange(fresh, Live());
  at(gradient.kept, to) = moved;
}

void Replay::play(const step::Event& event, std::int64_t instance) {
  switch (event.kind) {
    case EventKind::allocate: allocate(event.index, instance); break;
    case EventKind::free: release(event.index, instance); break;
    case EventKind::adopt: at(event.index, instance) = std::exchange(carried_, Live()); break;
    case EventKind::carry: carried_ = std::exchange(at(event.index, instance), Live()); break;
    case EventKind::ensure:
      if (!at(event.index, instance).alive) allocate(event.index, instance);
      break;
    case EventKind::keep_gradient:
    case EventKind::work:
    case EventKind::communicate: break;
  }
}

void Replay::play(const step::Phase& phase, const step::Body& body,
                  const step::Instance& instance) {
  phase_ = &phase;
  body_ = &body;
  layer_ = instance.layer();
  moment_peak_ = allocator_.allocated();
  if (timeline_) moment_ = on_the_device(live_);
  for (const step::Event& event : body.events) {
    if (event.kind == EventKind::work || event.kind == EventKind::communicate) continue;
    if (event.kind == EventKind::keep_gradient) {
      keep_gradient(program_.gradients[static_cast<std::size_t>(event.index)], instance);
      continue;
    }
    play(event, instance.of(program_.slots[static_cast<std::size_t>(event.index)]));
  }
  if (timeline_) {
    moments_.push_back({step::name_of(phase.kind), layer_text(body, layer_), moment_});
  }
}

void Replay::play(const std::vector<step::Pass>& passes, step::Progress& progress) {
  for (const step::Pass& pass : passes) play(pass, progress);
}

void Replay::find_homes() {
  homes_.resize(program_.slots.size());
  for (const step::Pass& pass : program_.step) {
    for (const step::Phase& phase : pass.phases) {
      for (const step::Body& body : phase.bodies) {
        for (const step::Event& event : body.events) {
          if (event.kind != EventKind::allocate && event.kind != EventKind::adopt) continue;
          homes_[static_cast<std::size_t>(event.index)] = {body.repeat, phase.chunk};
        }
      }
    }
  }
}

// Everything that decides how the program goes on from here: what lies where, and what is free.
// Micro-batches are told apart by their distance from the oldest one in flight.
std::uint64_t Replay::state(const step::Progress& progress) const {
  Fingerprint print;
  print.add(static_cast<std::int64_t>(allocator_.fingerprint()));
  for (std::size_t slot = 0; slot < live_blocks_.size(); ++slot) {
    const std::vector<Live>& instances = live_blocks_[slot];
    const auto count = static_cast<std::int64_t>(instances.size());
    const Home& home = homes_[slot];
    std::int64_t shift = 0;
    if (!program_.slots[slot].outlives_micro_batch && program_.in_flight > 1) {
      shift = progress.oldest(home.chunk) % program_.in_flight * home.layers;
    }
    const std::int64_t ring = std::max(count, program_.in_flight * home.layers);
    for (std::int64_t i = 0; i < ring; ++i) {
      const std::int64_t at = (i + shift) % ring;
      if (at >= count || !instances[static_cast<std::size_t>(at)].alive) continue;
      print.add(static_cast<std::int64_t>(slot));
      print.add(i);
      print.add(allocator_.address_of(instances[static_cast<std::size_t>(at)].block));
    }
  }
  return print.value();
}

// Micro-batches that meet a state seen before go as those that met it then: whole rounds of them
// change nothing and are left out.
void Replay::play(const step::Pass& pass, step::Progress& progress) {
  std::unordered_map<std::uint64_t, std::int64_t> seen;
  std::int64_t left = pass.repeat;
  while (left > 0) {
    if (!expand_all_ && pass.repeat > 2) {
      const auto [met, fresh] = seen.emplace(state(progress), left);
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

void Replay::play_step(bool first) {
  moments_.clear();
  step::Progress progress;
  for (const step::Pass& pass : program_.step) {
    const bool optimizes = pass.phases.front().kind == step::PhaseKind::optimizer;
    if (first && optimizes) play(program_.first_optimizer, progress);
    if (program_.gradients_outlive_step && pass.phases.front().kind == step::PhaseKind::zero_grad) {
      steady_ = allocator_.allocated();
    }
    play(pass, progress);
  }
}

Answer Replay::run() {
  for (std::int64_t i = 0; i < device_.gemm_handles; ++i) {
    // Per thread that multiplies: forward and autograd. From the allocator, kept for ever.
    const BlockId block = take(device_.gemm_workspace, 0);
    live_[VramCategory::runtime] += block == 0 ? Bytes() : allocator_.size_of(block);
  }
  step::Progress before;
  play(program_.setup, before);
  for (int i = 0; i < kSteps; ++i) play_step(i == 0);
  Answer answer;
  facts::RankMemory& memory = answer.memory;
  memory.kind = "data-parallel rank";
  memory.ranks = program_.ranks;
  memory.peak_allocated = peak_;
  memory.steady_allocated = steady_.value_or(allocator_.allocated());
  memory.peak_reserved = reserved_peak_;
  memory.by_category = at_peak_;
  memory.by_category[VramCategory::allocator] = reserved_peak_ - allocated_then_;
  memory.by_category[VramCategory::runtime] += device_.context;
  memory.by_category[VramCategory::communication] += communication_bytes(program_, device_);
  memory.peak_device_used = memory.by_category.total();
  memory.peak_at = peak_at_;
  answer.timeline = std::move(moments_);
  return answer;
}

}  // namespace

Answer replay(const Request& request) {
  return Replay(request).run();
}

}  // namespace steelyard::vram
