// Factors of the units that catalogue keys carry.
#pragma once

namespace steelyard::catalog {

constexpr double kMebi = 1024.0 * 1024.0;
constexpr double kGibi = 1024.0 * 1024.0 * 1024.0;
constexpr double kGiga = 1e9;
constexpr double kTera = 1e12;
constexpr double kGigabit = 1e9 / 8.0;  // bytes

}  // namespace steelyard::catalog
