// The sections of the plan's page, each as lines of at most `width` columns.
#pragma once

#include <string>
#include <vector>

#include "facts/plan.h"
#include "report/paint.h"

namespace steelyard::report {

using Lines = std::vector<std::string>;

// The job in words: model, machine, how it is trained.
[[nodiscard]] Lines title_lines(const facts::Plan& plan, const Paint& paint);
// FITS, DOES NOT FIT or CANNOT TELL, and why.
[[nodiscard]] Lines verdict_lines(const facts::Plan& plan, const Paint& paint);

[[nodiscard]] Lines vram_lines(const facts::Plan& plan, std::size_t width, const Paint& paint);
// Of one kind of rank: its peak in words (`more` behind them), as a bar, and by category.
[[nodiscard]] Lines rank_lines(const facts::RankMemory& rank, const facts::Known<Bytes>& capacity,
                               const std::vector<std::string>& more, std::size_t width,
                               const Paint& paint);
[[nodiscard]] Lines ram_lines(const facts::Plan& plan, std::size_t width, const Paint& paint);
[[nodiscard]] Lines balance_lines(const facts::Plan& plan, std::size_t width, const Paint& paint);
[[nodiscard]] Lines step_lines(const facts::Plan& plan, std::size_t width, const Paint& paint);
[[nodiscard]] Lines data_lines(const facts::Plan& plan, std::size_t width, const Paint& paint);
// Which ranks belong to which NUMA node, what crosses between sockets, how to bind; none with one
// node. The details name every rank, and what to look after.
[[nodiscard]] Lines numa_lines(const facts::Plan& plan, std::size_t width, const Paint& paint);
[[nodiscard]] Lines numa_details(const facts::Plan& plan, std::size_t width, const Paint& paint);
[[nodiscard]] Lines confidence_lines(const facts::Plan& plan, std::size_t width,
                                     const Paint& paint);
[[nodiscard]] Lines advice_lines(const facts::Plan& plan, std::size_t width, const Paint& paint);
[[nodiscard]] Lines note_lines(const facts::Plan& plan, std::size_t width, const Paint& paint);

// Phrases put together with a separator, broken into lines between phrases.
[[nodiscard]] Lines flowed(const std::vector<std::string>& phrases, std::size_t width,
                           const Paint& paint);

// Text from outside, with a capital letter and a full stop.
[[nodiscard]] std::string sentence_of(std::string_view text, const Paint& paint);

// "unknown (why)": what a figure that nobody knows is printed as.
[[nodiscard]] std::string unknown(std::string_view why, const Paint& paint);

}  // namespace steelyard::report
