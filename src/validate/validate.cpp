#include "validate/validate.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "validate/quantities.h"
#include "validate/summary.h"

namespace steelyard::validate {
namespace {

using facts::QuantityGroup;

bool selects_verdict(const Selection& selection, QuantityGroup group) {
  return !selection.only || *selection.only == group;
}

// A case belongs to the selection when it measures something of the selected group; without a group
// every case does, so that one without any figure is listed.
bool selects(const Selection& selection, const facts::Case& one) {
  if (!selection.source.empty() && one.source != selection.source) return false;
  if (!selection.confidence.empty() && one.confidence != selection.confidence) return false;
  if (!selection.only) return true;
  const bool verdict = (one.measured.fits && selects_verdict(selection, QuantityGroup::vram)) ||
                       (one.measured.fits_ram && selects_verdict(selection, QuantityGroup::ram));
  return verdict || measures(one.measured, *selection.only);
}

std::optional<Ratio> share_of(const facts::Known<Bytes>& capacity, Bytes used) {
  if (!capacity.value || *capacity.value == Bytes(0)) return std::nullopt;
  return Ratio(static_cast<double>(used.value()) / static_cast<double>(capacity.value->value()));
}

void count(const facts::WrongVerdict& verdict, bool predicted, facts::Validation& validation) {
  facts::FitsConfusion& fits = validation.fits;
  if (verdict.measured) {
    ++(predicted ? fits.true_positive : fits.false_negative);
  } else {
    ++(predicted ? fits.false_positive : fits.true_negative);
  }
  if (verdict.measured != predicted) validation.verdicts.push_back(verdict);
}

void compare_verdicts(const facts::Case& one, const facts::Plan& plan, const Selection& selection,
                      facts::Validation& validation) {
  const auto unknown = [&](const char* quantity, const char* capacity) {
    validation.unsupported.push_back(
        {one.id, one.source, std::string(quantity) + ": " + capacity + " is unknown"});
  };
  if (one.measured.fits && selects_verdict(selection, QuantityGroup::vram)) {
    if (plan.fits_vram) {
      const auto vram = share_of(plan.vram.capacity, plan.vram.fullest.peak_device_used);
      const auto ram = share_of(plan.ram.capacity, plan.ram.peak);
      count({one.id, one.source, one.confidence, "fits", *one.measured.fits, std::max(vram, ram)},
            plan.fits(), validation);
    } else {
      unknown("fits", "the card's capacity");
    }
  }
  if (one.measured.fits_ram && selects_verdict(selection, QuantityGroup::ram)) {
    if (plan.fits_ram) {
      count({one.id, one.source, one.confidence, "fits_ram", *one.measured.fits_ram,
             share_of(plan.ram.capacity, plan.ram.peak)},
            *plan.fits_ram, validation);
    } else {
      unknown("fits_ram", "the node's host memory");
    }
  }
}

bool measures_nothing(const facts::Measured& measured) {
  return !measured.fits && !measured.fits_ram && !measures(measured, QuantityGroup::vram) &&
         !measures(measured, QuantityGroup::ram) && !measures(measured, QuantityGroup::pace) &&
         !measures(measured, QuantityGroup::feed);
}

void compare_case(const facts::Case& one, const Selection& selection, const Planner& planner,
                  facts::Validation& validation) {
  if (measures_nothing(one.measured)) {
    validation.unsupported.push_back(
        {one.id, one.source, "nothing that a plan states is measured"});
    return;
  }
  const Result<facts::Plan> plan = planner(one);
  if (!plan) {
    validation.unsupported.push_back({one.id, one.source, to_text(plan.error())});
    return;
  }
  CaseComparison compared = compare_quantities(one, *plan, selection.only);
  for (auto& comparison : compared.comparisons) validation.cases.push_back(std::move(comparison));
  for (auto& reason : compared.unsupported) validation.unsupported.push_back(std::move(reason));
  compare_verdicts(one, *plan, selection, validation);
}

}  // namespace

facts::Validation compare(std::span<const facts::CaseFile> files, const Selection& selection,
                          const Planner& planner) {
  facts::Validation validation;
  for (const facts::CaseFile& file : files) {
    for (const facts::Case& one : file.cases) {
      if (selects(selection, one)) compare_case(one, selection, planner, validation);
    }
  }
  validation.summary = summarize(validation.cases);
  validation.overall = summarize_overall(validation.cases);
  return validation;
}

}  // namespace steelyard::validate
