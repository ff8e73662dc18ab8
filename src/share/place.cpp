// Branch and bound over the jobs, largest first. Three things keep the tree small and drop nothing
// that could be better: GPUs that look alike to what follows are tried once; a state that was
// reached before at no higher cost is not entered again; what a placement costs so far, and the
// least that the jobs still to come must add, is a bound.
#include "share/place.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <set>
#include <tuple>
#include <unordered_map>

namespace steelyard::share {
namespace {

// What of a tenant matters to a placement in this room: those that are equal are interchangeable.
using Type = std::tuple<std::int64_t, std::int64_t, double, double, std::int64_t>;

class Search {
 public:
  Search(const Room& room, const std::vector<Tenant>& tenants)
      : room_(room), tenants_(tenants), sittings_(tenants.size()), order_(tenants.size()) {
    std::map<Type, int> numbers;
    Bytes all;
    for (const Tenant& tenant : tenants_) all += tenant.ram * tenant.gpus;
    ram_matters_ = room.ram_per_socket > Bytes() && all > room.ram_per_socket;
    for (const Tenant& tenant : tenants_) {
      types_.push_back(
          numbers.emplace(type_of(tenant), static_cast<int>(numbers.size())).first->second);
    }
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    std::stable_sort(order_.begin(), order_.end(), [&](std::size_t a, std::size_t b) {
      return type_of(tenants_[a]) > type_of(tenants_[b]);
    });
    least_to_come();
  }

  std::optional<Placement> run() {
    enter(0);
    if (!best_) return std::nullopt;
    best_->exact = nodes_ < kMostNodes;
    return best_;
  }

 private:
  [[nodiscard]] bool shares() const { return room_.time_slice || room_.mig != nullptr; }

  [[nodiscard]] Type type_of(const Tenant& tenant) const {
    return {tenant.gpus, shares() ? tenant.vram.value() : 0, shares() ? tenant.busy : 1.0,
            tenant.uplink, ram_matters_ ? tenant.ram.value() : 0};
  }

  // Every job touches at least as many uplinks and sockets as its GPUs need.
  void least_to_come() {
    std::map<std::int64_t, std::int64_t> uplink_sizes, socket_sizes;
    for (std::int64_t gpu = 0; gpu < room_.gpus; ++gpu) {
      ++uplink_sizes[uplink_of(room_, gpu)];
      ++socket_sizes[socket_of(room_, gpu)];
    }
    const auto largest = [](const auto& sizes) {
      std::int64_t most = 1;
      for (const auto& [number, size] : sizes) most = std::max(most, size);
      return most;
    };
    const std::int64_t per_uplink = largest(uplink_sizes), per_socket = largest(socket_sizes);
    least_.assign(order_.size() + 1, Cost{});
    for (std::size_t d = order_.size(); d-- > 0;) {
      least_[d] = least_[d + 1];
      least_[d][3] += ceil_divide(tenants_[order_[d]].gpus, per_socket) - 1;
      least_[d][4] += ceil_divide(tenants_[order_[d]].gpus, per_uplink);
    }
  }

  [[nodiscard]] bool hopeless(const Cost& cost, std::size_t depth) const {
    if (!best_) return false;
    Cost bound = cost;
    for (std::size_t i = 0; i < bound.size(); ++i) bound[i] += least_[depth][i];
    return bound >= best_->cost;
  }

  // Who sits on a GPU, as far as it matters to those who come later.
  [[nodiscard]] std::string content(std::int64_t gpu) const {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < sittings_.size(); ++i) {
      if (std::ranges::find(sittings_[i].gpus, gpu) == sittings_[i].gpus.end()) continue;
      // Jobs that take turns slow each other on all of their GPUs: which job it is matters.
      const bool coupled = room_.time_slice && tenants_[i].gpus > 1;
      names.push_back(fmt::format("{}.{}{}", types_[i], sittings_[i].profile,
                                  coupled ? fmt::format("#{}", i) : ""));
    }
    std::sort(names.begin(), names.end());
    std::string text;
    for (const std::string& name : names) text += name + ",";
    return text;
  }

  // The room up to the order of sockets, of uplinks in a socket, and of GPUs on an uplink.
  [[nodiscard]] std::string state() const {
    std::map<std::int64_t, std::map<std::int64_t, std::vector<std::string>>> tree;
    for (std::int64_t gpu = 0; gpu < room_.gpus; ++gpu) {
      tree[socket_of(room_, gpu)][uplink_of(room_, gpu)].push_back(content(gpu));
    }
    std::vector<std::string> sockets;
    for (auto& [socket, uplinks] : tree) {
      std::vector<std::string> parts;
      for (auto& [uplink, gpus] : uplinks) {
        std::sort(gpus.begin(), gpus.end());
        std::string part = "(";
        for (const std::string& gpu : gpus) part += gpu + ";";
        parts.push_back(part + ")");
      }
      std::sort(parts.begin(), parts.end());
      std::string text = "[";
      for (const std::string& part : parts) text += part;
      sockets.push_back(text + "]");
    }
    std::sort(sockets.begin(), sockets.end());
    std::string text;
    for (const std::string& socket : sockets) text += socket;
    return text;
  }

  // Sets of the tenant's size: of GPUs on one uplink that hold the same, the first ones.
  void choose(std::size_t tenant, std::int64_t from, const std::vector<std::string>& contents,
              std::set<std::pair<std::int64_t, std::string>>& passed,
              std::vector<Sitting>& choices) {
    Sitting& sitting = sittings_[tenant];
    const auto taken = static_cast<std::int64_t>(sitting.gpus.size());
    if (taken == tenants_[tenant].gpus) {
      choices.push_back(sitting);
      return;
    }
    if (room_.gpus - from < tenants_[tenant].gpus - taken) return;
    const auto kind = std::pair(uplink_of(room_, from), contents[static_cast<std::size_t>(from)]);
    if (!passed.contains(kind)) {
      sitting.gpus.push_back(from);
      if (accepts(from)) choose(tenant, from + 1, contents, passed, choices);
      sitting.gpus.pop_back();
    }
    const bool added = passed.insert(kind).second;
    choose(tenant, from + 1, contents, passed, choices);
    if (added) passed.erase(kind);
  }

  [[nodiscard]] bool accepts(std::int64_t gpu) const {
    std::vector<Sitting> here(sittings_.size());
    std::vector<Tenant> alone = tenants_;
    for (std::size_t i = 0; i < sittings_.size(); ++i) {
      if (std::ranges::find(sittings_[i].gpus, gpu) == sittings_[i].gpus.end()) continue;
      here[i] = {{gpu}, sittings_[i].profile};
      alone[i].gpus = 1;
    }
    return is_legal(room_, alone, here);
  }

  [[nodiscard]] std::vector<Sitting> choices_for(std::size_t tenant) {
    std::vector<std::string> contents;
    for (std::int64_t gpu = 0; gpu < room_.gpus; ++gpu) contents.push_back(content(gpu));
    std::vector<Sitting> choices;
    const int profiles = room_.mig != nullptr && tenants_[tenant].gpus == 1
                             ? static_cast<int>(room_.mig->profiles.size())
                             : 0;
    for (int profile = -1; profile < profiles; ++profile) {
      if (profile >= 0 &&
          tenants_[tenant].vram > room_.mig->profiles[static_cast<std::size_t>(profile)].memory) {
        continue;
      }
      std::set<std::pair<std::int64_t, std::string>> passed;
      sittings_[tenant] = {.gpus = {}, .profile = profile};
      choose(tenant, 0, contents, passed, choices);
    }
    sittings_[tenant] = {};
    return choices;
  }

  void enter(std::size_t depth) {
    const Cost cost = cost_of(room_, tenants_, sittings_);
    if (hopeless(cost, depth) || nodes_ >= kMostNodes) return;
    if (depth == order_.size()) {
      best_ = Placement{.sittings = sittings_, .cost = cost};
      return;
    }
    ++nodes_;
    const auto [seen, fresh] = seen_.try_emplace(fmt::format("{}{}", depth, state()), cost);
    if (!fresh) {
      if (seen->second <= cost) return;
      seen->second = cost;
    }
    const std::size_t tenant = order_[depth];
    std::vector<std::pair<Cost, Sitting>> choices;
    for (Sitting& choice : choices_for(tenant)) {
      sittings_[tenant] = choice;
      choices.emplace_back(cost_of(room_, tenants_, sittings_), std::move(choice));
    }
    std::stable_sort(choices.begin(), choices.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    for (auto& [unused, choice] : choices) {
      sittings_[tenant] = std::move(choice);
      enter(depth + 1);
    }
    sittings_[tenant] = {};
  }

  const Room& room_;
  const std::vector<Tenant>& tenants_;
  std::vector<Sitting> sittings_;
  std::vector<std::size_t> order_;  // of the tenants, the largest first
  std::vector<int> types_;
  std::vector<Cost> least_;  // that tenants from a depth on must add
  bool ram_matters_ = false;
  std::optional<Placement> best_;
  std::unordered_map<std::string, Cost> seen_;
  std::int64_t nodes_ = 0;
};

}  // namespace

std::optional<Placement> place(const Room& room, const std::vector<Tenant>& tenants) {
  return Search(room, tenants).run();
}

}  // namespace steelyard::share
