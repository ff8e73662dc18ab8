#include "cli/what_if.h"

#include "plan/figures.h"

namespace steelyard::cli {

Result<Base> base_of(const Session& session, const JobWords& words) {
  STEELYARD_TRY(read, read_job(words));
  STEELYARD_TRY(catalog, open_catalog(session));
  Result<plan::Request> request = request_of(read, catalog);
  if (!request) return fail(placed(request.error(), read));
  request->advice = false;
  Result<facts::Plan> planned = plan::plan(*request);
  if (!planned) return fail(placed(planned.error(), read));
  return Base{std::move(read), std::move(catalog), std::move(*request), std::move(*planned)};
}

search::Planner planner_of(const Base& base) {
  return [&base](const facts::Job& job, search::Depth depth) -> Result<facts::Plan> {
    STEELYARD_TRY(request, request_of({job, base.read.folder}, base.catalog));
    request.advice = false;
    request.vram = depth != search::Depth::without_vram;
    return plan::figures(request, {.only_if_fits = depth == search::Depth::only_if_fits});
  };
}

Result<facts::Machine> machine_named(const Base& base, const std::string& name) {
  facts::Job job;
  job.machine.name = name;
  Result<facts::Machine> machine = base.catalog.machine_of(job, base.read.folder);
  if (machine || !base.catalog.gpu(name)) return machine;
  job.machine = {};
  job.machine.gpu = name;
  return base.catalog.machine_of(job, base.read.folder);
}

}  // namespace steelyard::cli
