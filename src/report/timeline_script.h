// The style and the program of the drawn timeline, as they stand in the page.
#pragma once

namespace steelyard::report {

extern const char* const kTimelineStyle;
extern const char* const kTimelineScript;

}  // namespace steelyard::report
