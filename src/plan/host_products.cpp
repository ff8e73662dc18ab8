#include "plan/host_products.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "base/format.h"

namespace steelyard::plan {
namespace {

using facts::Known;
using facts::Provenance;

Known<double> cores_of(const facts::Host& host) {
  if (host.cores) return {static_cast<double>(*host.cores), host.cores.from};
  if (host.threads) {
    return {static_cast<double>(*host.threads) / 2.0, Provenance::assumed,
            "two hardware threads per core"};
  }
  return {};
}

Known<FlopsPerSecond> assumed_rate(const facts::Host& host, FlopsPerSecond of_core) {
  const Known<double> cores = cores_of(host);
  if (!cores || !(of_core > FlopsPerSecond())) return {};
  return {of_core * *cores, Provenance::assumed,
          fmt::format("{:g} cores of {} each", *cores, to_text(of_core))};
}

std::string text_of(const Known<FlopsPerSecond>& rate) {
  const char* from = "stated";
  if (rate.from == Provenance::measured) from = "measured";
  if (rate.from == Provenance::catalogue) from = "catalogue";
  if (rate.from == Provenance::assumed) from = "assumed";
  return fmt::format("{} ({}{}{})", to_text(*rate), from, rate.note.empty() ? "" : ": ", rate.note);
}

struct OnHost {  // by one rank in a step
  Flops flops;
  facts::DType type = facts::DType::fp32;
};

OnHost computed_on_host(const step::Program& program) {
  OnHost sum;
  for (const step::Pass& pass : program.step) {
    step::for_each_phase(pass, [&](const step::Phase& phase) {
      for (const step::Body& body : phase.bodies) {
        for (const step::Event& event : body.events) {
          if (event.kind != step::EventKind::work) continue;
          const step::Work& work = program.work[static_cast<std::size_t>(event.index)];
          if (work.kind != step::WorkKind::host || !(work.flops > Flops())) continue;
          sum.flops += work.flops * static_cast<double>(checked_multiply(pass.repeat, body.repeat));
          sum.type = work.dtype;
        }
      }
    });
  }
  return sum;
}

struct Rates {
  Known<FlopsPerSecond> wide, half;
};

Rates rates_of(const Request& request, const facts::Host& host) {
  const Known<FlopsPerSecond> usual = assumed_rate(host, request.constants.host.core_products);
  Rates rates{host.products_fp32 ? host.products_fp32 : usual, host.products_bf16};
  if (rates.half) return rates;
  rates.half = rates.wide;
  if (!rates.half) return rates;
  rates.half.from = Provenance::assumed;
  if (host.products_fp32) rates.half.note = "as fast as in fp32";
  return rates;
}

}  // namespace

pace::HostProducts host_products(const Request& request, const facts::Machine& machine) {
  const Rates rates = rates_of(request, machine.host);
  return {rates.wide.value, rates.half.value};
}

void tell_host_products(const Request& request, const step::Program& program, facts::Plan& plan) {
  const OnHost done = computed_on_host(program);
  if (!(done.flops > Flops())) return;
  const Rates rates = rates_of(request, plan.machine.host);
  const Known<FlopsPerSecond>& rate = done.type == facts::DType::fp32 ? rates.wide : rates.half;
  if (!rate) return;  // the plan then says what is missing
  const std::int64_t ranks = std::max<std::int64_t>(1, plan.job.machine.gpus.value_or(1));
  std::string said = fmt::format(
      "Companions on the CPU: {} of each rank in a step, at its share of the node's {}; the GPU "
      "waits for them.",
      to_text(done.flops), text_of(rate));
  const Known<double> cores = cores_of(plan.machine.host);
  if (ranks > 1 && cores) {
    said += fmt::format(
        " torchrun gives each of several ranks one thread unless OMP_NUM_THREADS says otherwise "
        "({:.0f} cores a rank here).",
        std::max(1.0, *cores / static_cast<double>(ranks)));
  }
  plan.pace.assumptions.push_back(std::move(said));
  if (rate.from != Provenance::assumed) return;
  plan.warnings.push_back(
      fmt::format("the step waits for companions on the CPU, whose rate is {}: machine.host_tflops "
                  "states what the host's processors do",
                  text_of(rate)));
}

}  // namespace steelyard::plan
