#include "pace/fit.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "pace/free_constants.h"

namespace steelyard::pace {
namespace {

using Vector = std::vector<double>;

// An error of this size counts squared, a larger one by its size (Huber's idea, smooth).
constexpr double kUsualError = 0.15;
// How strongly constants stay where they start, over one case of a source of its own.
constexpr double kPull = 0.4;
constexpr double kLargestWeight = 0.3;
constexpr int kRounds = 8;
constexpr double kStep = 1e-3;    // of the logarithm, for derivatives
constexpr double kLeap = 0.4;     // of the logarithm, in one round
constexpr double kEnough = 2e-3;  // of the sum of squares

double softened(double error) {
  const double x = error / kUsualError;
  const double size = kUsualError * std::sqrt(2.0 * (std::sqrt(1.0 + x * x) - 1.0));
  return error < 0.0 ? -size : size;
}

Result<double> residual(const Observation& one, const facts::EfficiencyConstants& efficiency) {
  Request request = one.request;
  request.efficiency = &efficiency;
  STEELYARD_TRY(plan, step_time(request));
  return plan.step ? std::log(plan.step->value() / one.measured.value()) : 0.0;
}

class Problem {
 public:
  Problem(std::span<const Observation> observations, const facts::EfficiencyConstants& efficiency)
      : observations_(observations), start_(efficiency), free_(free_constants(efficiency)) {
    std::map<std::string, double> cases;
    for (const Observation& one : observations) cases[one.source] += 1.0;
    for (const Observation& one : observations) {
      weights_.push_back(one.weight * std::min(kLargestWeight, 1.0 / std::sqrt(cases[one.source])) /
                         kLargestWeight);
    }
    for (const FreeConstant& constant : free_) {
      at_start_.push_back(std::log(std::clamp(constant.get(start_), constant.low, constant.high)));
    }
  }

  [[nodiscard]] const Vector& start() const { return at_start_; }
  [[nodiscard]] const std::vector<FreeConstant>& free() const { return free_; }

  [[nodiscard]] facts::EfficiencyConstants at(const Vector& x) const {
    facts::EfficiencyConstants constants = start_;
    for (std::size_t i = 0; i < x.size(); ++i) {
      free_[i].set(constants, std::clamp(std::exp(x[i]), free_[i].low, free_[i].high));
    }
    return constants;
  }

  [[nodiscard]] Result<Vector> errors(const Vector& x) const {
    STEELYARD_TRY(logs, residuals(observations_, at(x)));
    for (std::size_t i = 0; i < logs.size(); ++i) logs[i] = softened(logs[i]) * weights_[i];
    for (std::size_t i = 0; i < x.size(); ++i) logs.push_back(pulled(x, i));
    return logs;
  }
  // The same where only constant j has moved since `here`: most steps are on other GPUs.
  [[nodiscard]] Result<Vector> errors(const Vector& x, std::size_t j, const Vector& here) const {
    const facts::EfficiencyConstants constants = at(x);
    Vector errors = here;
    for (std::size_t i = 0; i < observations_.size(); ++i) {
      if (!free_[j].concerns(observations_[i].request.machine->gpu.architecture)) continue;
      STEELYARD_TRY(log, residual(observations_[i], constants));
      errors[i] = softened(log) * weights_[i];
    }
    errors[observations_.size() + j] = pulled(x, j);
    return errors;
  }

  // Inside of its bounds.
  void confine(Vector& x) const {
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = std::clamp(x[i], std::log(free_[i].low), std::log(free_[i].high));
    }
  }

 private:
  [[nodiscard]] double pulled(const Vector& x, std::size_t i) const {
    return kPull * (x[i] - at_start_[i]) * kUsualError / free_[i].spread;
  }

  std::span<const Observation> observations_;
  const facts::EfficiencyConstants& start_;
  std::vector<FreeConstant> free_;
  Vector weights_, at_start_;
};

double squares(const Vector& v) {
  double sum = 0.0;
  for (const double x : v) sum += x * x;
  return sum;
}

// a x = b for a symmetric positive definite matrix, by Cholesky's factors; a and b are used up.
Vector solved(std::vector<Vector> a, Vector b) {
  const std::size_t n = b.size();
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = a[i][j];
      for (std::size_t k = 0; k < j; ++k) sum -= a[i][k] * a[j][k];
      a[i][j] = i == j ? std::sqrt(std::max(sum, 1e-12)) : sum / a[j][j];
    }
  }
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t k = 0; k < i; ++k) b[i] -= a[i][k] * b[k];
    b[i] /= a[i][i];
  }
  for (std::size_t i = n; i-- > 0;) {
    for (std::size_t k = i + 1; k < n; ++k) b[i] -= a[k][i] * b[k];
    b[i] /= a[i][i];
  }
  return b;
}

struct Slope {
  std::vector<Vector> curvature;  // J^T J
  Vector downhill;                // -J^T r
};

Result<Slope> slope_at(const Problem& problem, const Vector& x, const Vector& here) {
  const std::size_t n = x.size();
  std::vector<Vector> columns;
  for (std::size_t j = 0; j < n; ++j) {
    Vector moved = x;
    // Away from the upper bound, where a step would not be one.
    const double step = std::exp(x[j] + kStep) > problem.free()[j].high ? -kStep : kStep;
    moved[j] += step;
    STEELYARD_TRY(there, problem.errors(moved, j, here));
    for (std::size_t i = 0; i < there.size(); ++i) there[i] = (there[i] - here[i]) / step;
    columns.push_back(std::move(there));
  }
  const auto along = [&](const Vector& a, const Vector& b) {
    double sum = 0.0;
    for (std::size_t k = 0; k < here.size(); ++k) sum += a[k] * b[k];
    return sum;
  };
  Slope slope;
  for (const Vector& column : columns) {
    slope.downhill.push_back(-along(column, here));
    Vector row;
    for (const Vector& other : columns) row.push_back(along(column, other));
    slope.curvature.push_back(std::move(row));
  }
  return slope;
}

}  // namespace

Result<Vector> residuals(std::span<const Observation> observations,
                         const facts::EfficiencyConstants& efficiency) {
  Vector logs;
  for (const Observation& one : observations) {
    STEELYARD_TRY(log, residual(one, efficiency));
    logs.push_back(log);
  }
  return logs;
}

Result<Fit> fit(std::span<const Observation> observations,
                const facts::EfficiencyConstants& efficiency) {
  const Problem problem(observations, efficiency);
  Vector x = problem.start();
  STEELYARD_TRY(first, problem.errors(x));
  Vector here = std::move(first);
  double damping = 1e-2;
  for (int round = 0; round < kRounds; ++round) {
    STEELYARD_TRY(slope, slope_at(problem, x, here));
    const double before = squares(here);
    bool better = false;
    for (int attempt = 0; attempt < 6 && !better; ++attempt) {
      std::vector<Vector> damped = slope.curvature;
      for (std::size_t i = 0; i < x.size(); ++i) damped[i][i] *= 1.0 + damping;
      const Vector change = solved(std::move(damped), slope.downhill);
      Vector next = x;
      for (std::size_t i = 0; i < x.size(); ++i) next[i] += std::clamp(change[i], -kLeap, kLeap);
      problem.confine(next);
      STEELYARD_TRY(there, problem.errors(next));
      better = squares(there) < before;
      damping *= better ? 0.2 : 8.0;
      if (!better) continue;
      x = std::move(next);
      here = std::move(there);
    }
    if (!better || before - squares(here) < kEnough * before) break;
  }
  Fit found{{}, problem.at(x)};
  for (const FreeConstant& constant : problem.free()) {
    found.constants.push_back(
        {constant.path, constant.get(efficiency), constant.get(found.efficiency)});
  }
  return found;
}

}  // namespace steelyard::pace
