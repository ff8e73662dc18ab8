#include "validate/quantities.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "facts/process_memory.h"
#include "validate/flops_convention.h"

namespace steelyard::validate {
namespace {

using facts::Measured;
using facts::Plan;
using facts::QuantityGroup;

// What a measurement says of a quantity: one value, or an interval in which it lies.
struct Interval {
  double low;
  double high;

  static Interval exactly(double value) { return {value, value}; }
  [[nodiscard]] double middle() const { return (low + high) / 2.0; }
  // 0 inside; beyond, predicted / nearer edge - 1.
  [[nodiscard]] double error(double predicted) const {
    if (predicted < low) return predicted / low - 1.0;
    if (predicted > high) return predicted / high - 1.0;
    return 0.0;
  }
};

class CaseReader {
 public:
  CaseReader(const facts::Case& measured_case, const Plan& plan)
      : case_(measured_case), plan_(plan) {}

  void vram();
  void ram();
  void pace();
  void feed();

  CaseComparison result;

 private:
  void compare(QuantityGroup group, const std::string& quantity, Interval measured,
               const Comparable<double>& predicted);
  void pace_quantity(const std::string& quantity, double measured,
                     const Comparable<double>& predicted);

  [[nodiscard]] const facts::RankMemory& rank() const;
  [[nodiscard]] Bytes counter(facts::VramMeter meter) const;
  [[nodiscard]] Comparable<double> ram_of(facts::RamScope scope) const;
  [[nodiscard]] Comparable<double> tera_flops() const;
  [[nodiscard]] Comparable<double> utilization(const std::optional<Ratio>& own) const;

  const facts::Case& case_;
  const Plan& plan_;
};

void CaseReader::compare(QuantityGroup group, const std::string& quantity, Interval measured,
                         const Comparable<double>& predicted) {
  const auto give_up = [&](const std::string& reason) {
    result.unsupported.push_back({case_.id, case_.source, quantity + ": " + reason});
  };
  if (!predicted) return give_up(predicted.error());
  if (measured.high <= 0.0 || measured.low > measured.high) {
    return give_up("the measured value is not above zero, or its bounds are exchanged");
  }
  facts::Comparison comparison;
  comparison.id = case_.id;
  comparison.source = case_.source;
  comparison.confidence = case_.confidence;
  comparison.quantity = quantity;
  comparison.group = group;
  comparison.measured = measured.middle();
  comparison.predicted = *predicted;
  comparison.error = Ratio(measured.error(*predicted));
  result.comparisons.push_back(std::move(comparison));
}

// --- VRAM
// ------------------------------------------------------------------------------------------

const facts::RankMemory& CaseReader::rank() const {
  const bool last = case_.measured.vram_rank == "last_stage" && !plan_.vram.ranks.empty();
  return last ? plan_.vram.ranks.back() : plan_.vram.fullest;
}

// `unknown` is read as reserved: between the other two, and what most tools that do not say print.
Bytes CaseReader::counter(facts::VramMeter meter) const {
  switch (meter) {
    case facts::VramMeter::allocated: return rank().peak_allocated;
    case facts::VramMeter::device_used: return rank().peak_device_used;
    case facts::VramMeter::reserved:
    case facts::VramMeter::unknown: break;
  }
  return rank().peak_reserved;
}

void CaseReader::vram() {
  const Measured& measured = case_.measured;
  const auto one = [&](const char* quantity, const std::optional<Bytes>& value, Bytes predicted) {
    if (!value) return;
    compare(QuantityGroup::vram, quantity, Interval::exactly(value->real()), predicted.real());
  };
  one("vram_peak_allocated", measured.vram_peak_allocated, rank().peak_allocated);
  one("vram_peak_reserved", measured.vram_peak_reserved, rank().peak_reserved);
  one("vram_peak_device_used", measured.vram_peak_device_used, rank().peak_device_used);
  one("vram_steady_allocated", measured.vram_steady_allocated, rank().steady_allocated);
  if (measured.vram_low || measured.vram_high) {
    const Bytes predicted = counter(measured.vram_meter.value_or(facts::VramMeter::unknown));
    const double low = measured.vram_low.value_or(Bytes()).real();
    const double high =
        measured.vram_high ? measured.vram_high->real() : std::max(low, predicted.real());
    compare(QuantityGroup::vram, "vram_bracket", {low, high}, predicted.real());
  }
}

// --- RAM
// -------------------------------------------------------------------------------------------

Comparable<double> CaseReader::ram_of(facts::RamScope scope) const {
  const auto total = [&](std::size_t phase) {
    const facts::RamBytes& node = plan_.ram.phases[phase];
    switch (scope) {
      case facts::RamScope::process: return facts::fullest_process(plan_).phases[phase].total();
      case facts::RamScope::job: return node.total() - node[facts::RamCategory::system];
      case facts::RamScope::node: break;
    }
    return node.total();
  };
  if (case_.measured.ram_phase) {
    return total(static_cast<std::size_t>(*case_.measured.ram_phase)).real();
  }
  Bytes peak;
  for (std::size_t i = 0; i < facts::kRamPhases; ++i) peak = std::max(peak, total(i));
  return peak.real();
}

void CaseReader::ram() {
  const Measured& measured = case_.measured;
  const bool job = measured.ram_scope == facts::RamScope::job;
  if (measured.ram_peak) {
    compare(QuantityGroup::ram, "ram_peak", Interval::exactly(measured.ram_peak->real()),
            ram_of(job ? facts::RamScope::job : facts::RamScope::node));
  }
  if (measured.ram_process_peak) {
    compare(QuantityGroup::ram, "ram_process_peak",
            Interval::exactly(measured.ram_process_peak->real()), ram_of(facts::RamScope::process));
  }
  if (measured.ram_low || measured.ram_high) {
    const Comparable<double> predicted = ram_of(measured.ram_scope.value_or(facts::RamScope::node));
    const double low = measured.ram_low.value_or(Bytes()).real();
    const double high =
        measured.ram_high ? measured.ram_high->real() : std::max(low, predicted.value_or(low));
    compare(QuantityGroup::ram, "ram_bracket", {low, high}, predicted);
  }
}

// --- Pace
// ------------------------------------------------------------------------------------------

template <class Quantity>
Comparable<double> stated(const std::optional<Quantity>& value, const Plan& plan) {
  if (value) return value->value();
  std::string reason = "the plan does not state it";
  if (!plan.pace.missing.empty()) reason += "; unknown: " + plan.pace.missing.front();
  return std::unexpected(reason);
}

// Convolutions of 3 x 3 that no matrix unit multiplies may need a quarter of the products that are
// counted: Winograd's F(4 x 4, 3 x 3).
double counted_per_product(const Plan& plan) {
  constexpr double kWinograd = 4.0, kAmpere = 8.0;
  const facts::TrainKeys& train = plan.job.train;
  const bool tf32_as_fp32 = train.precision == facts::Precision::tf32 &&
                            plan.machine.gpu.compute_capability.value_or(kAmpere) < kAmpere;
  const bool vector = train.precision == facts::Precision::fp32 || tf32_as_fp32;
  return vector && !train.image_size.empty() ? kWinograd : 1.0;
}

// The share of the GPU's peak that the printed figure asks for, counted as the plan counts, which
// is the least that any convention does: forward and backward, causal attention halved, nothing
// done twice.
std::optional<double> share_of_peak(const std::string& quantity, double measured, double predicted,
                                    const Plan& plan) {
  if (!plan.pace.mfu || measured <= 0.0 || predicted <= 0.0) return std::nullopt;
  const double times = quantity == "step_seconds" ? predicted / measured : measured / predicted;
  return plan.pace.mfu->value() * times / counted_per_product(plan);
}

void CaseReader::pace_quantity(const std::string& quantity, double measured,
                               const Comparable<double>& predicted) {
  const std::size_t before = result.comparisons.size();
  compare(QuantityGroup::pace, quantity, Interval::exactly(measured), predicted);
  if (result.comparisons.size() == before) return;
  const auto share = share_of_peak(quantity, measured, *predicted, plan_);
  if (!share || *share <= 1.0) return;
  result.comparisons.back().impossible = fmt::format(
      "the model's arithmetic at this rate is {:.2f} times the dense peak of the GPU", *share);
}

Comparable<double> CaseReader::tera_flops() const {
  constexpr double kTera = 1e12;
  const auto& own = plan_.pace.model_flops_per_gpu;
  if (!own) return stated(own, plan_);
  if (!case_.measured.flops_convention) return own->value() / kTera;
  const auto rate = rate_per_gpu(*case_.measured.flops_convention, plan_);
  if (!rate) return std::unexpected(rate.error());
  return rate->value() / kTera;
}

Comparable<double> CaseReader::utilization(const std::optional<Ratio>& own) const {
  if (!own || !case_.measured.flops_convention) return stated(own, plan_);
  const auto factor = counted_per_own(*case_.measured.flops_convention, plan_);
  if (!factor) return std::unexpected(factor.error());
  return own->value() * factor->value();
}

// One per case, so that a source that prints the same run in four units does not count four times.
void CaseReader::pace() {
  const Measured& measured = case_.measured;
  const facts::PacePlan& plan = plan_.pace;
  if (measured.step_seconds) {
    pace_quantity("step_seconds", measured.step_seconds->value(), stated(plan.step, plan_));
  } else if (measured.tokens_per_second_per_gpu) {
    pace_quantity("tokens_per_second_per_gpu", measured.tokens_per_second_per_gpu->value(),
                  stated(plan.tokens_per_gpu, plan_));
  } else if (measured.samples_per_second) {
    pace_quantity("samples_per_second", measured.samples_per_second->value(),
                  stated(plan.samples, plan_));
  } else if (measured.tflops_per_gpu) {
    pace_quantity("tflops_per_gpu", *measured.tflops_per_gpu, tera_flops());
  } else if (measured.mfu) {
    pace_quantity("mfu", measured.mfu->value(), utilization(plan.mfu));
  } else if (measured.hfu_tflops_per_gpu) {
    const bool counts_by_parameters = measured.flops_convention == facts::FlopsConvention::eight_n;
    pace_quantity("hfu_tflops_per_gpu", *measured.hfu_tflops_per_gpu,
                  counts_by_parameters
                      ? tera_flops()
                      : std::unexpected("a rate with recomputation is compared only when it counts "
                                        "8 per parameter and token"));
  } else if (measured.hfu) {
    pace_quantity("hfu", measured.hfu->value(), stated(plan.hfu, plan_));
  }
}

// --- Feed
// ------------------------------------------------------------------------------------------

void CaseReader::feed() {
  const auto& measured = case_.measured.loader_samples_per_second;
  if (!measured) return;
  Comparable<double> predicted = std::unexpected("the rate of a stage of the data path is unknown");
  if (const auto& supply = plan_.feed.supply) {
    predicted = supply->value() * static_cast<double>(plan_.job.machine.nodes);
  }
  compare(QuantityGroup::feed, "loader_samples_per_second", Interval::exactly(measured->value()),
          predicted);
}

}  // namespace

bool measures(const Measured& m, QuantityGroup group) {
  switch (group) {
    case QuantityGroup::vram:
      return m.vram_peak_allocated || m.vram_peak_reserved || m.vram_peak_device_used ||
             m.vram_steady_allocated || m.vram_low || m.vram_high;
    case QuantityGroup::ram: return m.ram_peak || m.ram_process_peak || m.ram_low || m.ram_high;
    case QuantityGroup::pace:
      return m.step_seconds || m.tokens_per_second_per_gpu || m.samples_per_second ||
             m.tflops_per_gpu || m.mfu || m.hfu_tflops_per_gpu || m.hfu;
    case QuantityGroup::feed: return m.loader_samples_per_second.has_value();
  }
  return false;
}

CaseComparison compare_quantities(const facts::Case& measured_case, const Plan& plan,
                                  std::optional<QuantityGroup> only) {
  CaseReader reader(measured_case, plan);
  const auto selected = [&](QuantityGroup group) { return !only || *only == group; };
  if (selected(QuantityGroup::vram)) reader.vram();
  if (selected(QuantityGroup::ram)) reader.ram();
  if (selected(QuantityGroup::pace)) reader.pace();
  if (selected(QuantityGroup::feed)) reader.feed();
  return std::move(reader.result);
}

}  // namespace steelyard::validate
