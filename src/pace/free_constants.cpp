#include "pace/free_constants.h"

#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace steelyard::pace {
namespace {

using facts::EfficiencyConstants;

// A member and the unit of its key in pace.toml.
struct Member {
  const char* key;
  std::function<double(const EfficiencyConstants&)> get;
  std::function<void(EfficiencyConstants&, double)> set;
  double low, high, spread;
};

Member ratio(const char* key, Ratio EfficiencyConstants::*member, double low, double high,
             double spread) {
  return {key,
          [member](const EfficiencyConstants& c) { return (c.*member).value(); },
          [member](EfficiencyConstants& c, double value) { c.*member = Ratio(value); },
          low,
          high,
          spread};
}

Member number(const char* key, double EfficiencyConstants::*member, double low, double high,
              double spread) {
  return {key,
          [member](const EfficiencyConstants& c) { return c.*member; },
          [member](EfficiencyConstants& c, double value) { c.*member = value; },
          low,
          high,
          spread};
}

Member microseconds(const char* key, Seconds EfficiencyConstants::*member, double low, double high,
                    double spread) {
  constexpr double kMicro = 1e-6;
  return {key,
          [member](const EfficiencyConstants& c) { return (c.*member).value() / kMicro; },
          [member](EfficiencyConstants& c, double value) { c.*member = Seconds(value * kMicro); },
          low,
          high,
          spread};
}

// Those that differ by generation: what the matrix units and their kernels reach.
std::vector<Member> of_each_architecture() {
  using C = EfficiencyConstants;
  return {ratio("gemm_ratio", &C::gemm, 0.4, 0.95, 0.08),
          ratio("attention_forward_ratio", &C::attention_forward, 0.1, 0.8, 0.2),
          ratio("attention_backward_ratio", &C::attention_backward, 0.1, 0.8, 0.2),
          ratio("cudnn_attention_forward_ratio", &C::cudnn_attention_forward, 0.1, 0.8, 0.2),
          ratio("cudnn_attention_backward_ratio", &C::cudnn_attention_backward, 0.1, 0.8, 0.2),
          ratio("memory_ratio", &C::memory, 0.6, 1.0, 0.08)};
}

std::vector<Member> of_all() {
  using C = EfficiencyConstants;
  return {ratio("gemm_peak_ratio", &C::gemm_peak, 0.8, 1.0, 0.05),
          ratio("gemm_tf32_ratio", &C::gemm_tf32, 0.5, 1.0, 0.15),
          ratio("gemm_vector_ratio", &C::gemm_vector, 0.6, 1.0, 0.08),
          ratio("gemm_unaligned_batched_ratio", &C::gemm_unaligned_batched, 0.3, 1.0, 0.3),
          ratio("gemm_unaligned_ratio", &C::gemm_unaligned, 1.0, 10.0, 0.4),
          number("attention_half_intensity", &C::attention_half_intensity, 10.0, 300.0, 0.7),
          number("winograd", &C::winograd, 1.0, 2.25, 0.3),
          number("convolution_layout", &C::convolution_layout, 0.1, 2.0, 0.4),
          ratio("link_ratio", &C::link, 0.5, 0.95, 0.12),
          ratio("network_ratio", &C::network, 0.4, 0.95, 0.2),
          ratio("host_peer_ratio", &C::host_peer, 0.2, 0.8, 0.4),
          ratio("overlap_slowdown_ratio", &C::overlap_slowdown, 0.05, 0.5, 0.4),
          ratio("step_overhead_ratio", &C::step_overhead, 0.005, 0.12, 0.8),
          ratio("rank_spread_ratio", &C::rank_spread, 0.003, 0.06, 0.5),
          microseconds("kernel_launch_us", &C::kernel_launch, 3.0, 20.0, 0.5),
          microseconds("kernel_launch_forward_us", &C::kernel_launch_forward, 3.0, 30.0, 0.5),
          microseconds("kernel_floor_us", &C::kernel_floor, 1.0, 10.0, 0.5)};
}

void everywhere(EfficiencyConstants& constants,
                const std::function<void(EfficiencyConstants&)>& change) {
  change(constants);
  for (EfficiencyConstants& here : constants.by_architecture) change(here);
}

bool is_printed(const EfficiencyConstants& constants, const char* key) {
  const std::vector<std::string>& printed = constants.printed;
  return std::find(printed.begin(), printed.end(), key) != printed.end();
}

std::set<std::string> architectures_of(const EfficiencyConstants& efficiency) {
  std::set<std::string> names;
  for (const EfficiencyConstants& here : efficiency.by_architecture) {
    names.insert(here.architecture);
  }
  return names;
}

void add_calls(const EfficiencyConstants& efficiency, std::vector<FreeConstant>& free) {
  constexpr double kMicro = 1e-6;
  for (const auto& [name, times] : efficiency.calls_of) {
    for (const auto& [key, member] : {std::pair{"layers_us", &facts::CallTimes::layers},
                                      std::pair{"experts_us", &facts::CallTimes::experts},
                                      std::pair{"weights_us", &facts::CallTimes::weights}}) {
      if (!(times.*member > Seconds())) continue;
      const auto in = [name = name, member = member](const EfficiencyConstants& c) {
        return (c.calls_of.at(name).*member).value() / kMicro;
      };
      const auto out = [name = name, member = member](EfficiencyConstants& c, double value) {
        everywhere(c, [&](EfficiencyConstants& here) {
          here.calls_of.at(name).*member = Seconds(value * kMicro);
        });
      };
      free.push_back({{"calls_of", name, key}, in, out, 5.0, 500.0, 0.8});
    }
  }
}

// Of cards whose best product is not in print.
void add_cards(const EfficiencyConstants& efficiency, std::vector<FreeConstant>& free) {
  for (const auto& [name, best] : efficiency.best_product_of) {
    const auto in = [name = name](const EfficiencyConstants& c) {
      return c.best_product_of.at(name);
    };
    const auto out = [name = name](EfficiencyConstants& c, double value) {
      everywhere(c, [&](EfficiencyConstants& here) { here.best_product_of.at(name) = value; });
    };
    free.push_back({{"best_product_of", name}, in, out, 0.6, 0.95, 0.1});
  }
}

void add_named(const EfficiencyConstants& efficiency, std::vector<FreeConstant>& free) {
  for (const auto& [name, group] : efficiency.kernels) {
    const auto in = [name = name](const EfficiencyConstants& c) {
      return c.kernels.at(name).traffic;
    };
    const auto out = [name = name](EfficiencyConstants& c, double value) {
      everywhere(c, [&](EfficiencyConstants& here) { here.kernels.at(name).traffic = value; });
    };
    free.push_back({{"kernels", name, "traffic"}, in, out, 1.0, 6.0, 0.5});
  }
  for (const auto& [name, rates] : efficiency.attention_of) {
    if (rates.cudnn_from) continue;  // which kernels of cuDNN run where, and what is in print
    for (const auto& [key, member] :
         {std::pair{"forward_ratio", &facts::AttentionRates::forward},
          std::pair{"backward_ratio", &facts::AttentionRates::backward}}) {
      const auto in = [name = name, member = member](const EfficiencyConstants& c) {
        return (c.attention_of.at(name).*member).value();
      };
      const auto out = [name = name, member = member](EfficiencyConstants& c, double value) {
        everywhere(c, [&](EfficiencyConstants& here) {
          here.attention_of.at(name).*member = Ratio(value);
        });
      };
      free.push_back({{"attention_of", name, key}, in, out, 0.02, 1.0, 0.3});
    }
  }
}

}  // namespace

std::vector<FreeConstant> free_constants(const EfficiencyConstants& efficiency) {
  std::vector<FreeConstant> free;
  const auto has_its_own = [names = architectures_of(efficiency)](const std::string& name) {
    return names.contains(name);
  };
  for (const Member& member : of_each_architecture()) {
    free.push_back({{member.key}, member.get, member.set, member.low, member.high, member.spread});
    free.back().concerns = std::not_fn(has_its_own);
    for (std::size_t i = 0; i < efficiency.by_architecture.size(); ++i) {
      if (is_printed(efficiency.by_architecture[i], member.key)) continue;
      const auto in = [member, i](const EfficiencyConstants& c) {
        return member.get(c.by_architecture[i]);
      };
      const auto out = [member, i](EfficiencyConstants& c, double value) {
        member.set(c.by_architecture[i], value);
      };
      const std::string& name = efficiency.by_architecture[i].architecture;
      free.push_back(
          {{"architecture", name, member.key}, in, out, member.low, member.high, member.spread});
      free.back().concerns = [name](const std::string& other) { return other == name; };
    }
  }
  for (const Member& member : of_all()) {
    const auto out = [member](EfficiencyConstants& c, double value) {
      everywhere(c, [&](EfficiencyConstants& here) { member.set(here, value); });
    };
    free.push_back({{member.key}, member.get, out, member.low, member.high, member.spread});
  }
  add_cards(efficiency, free);
  add_named(efficiency, free);
  add_calls(efficiency, free);
  return free;
}

}  // namespace steelyard::pace
