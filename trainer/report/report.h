#pragma once

#include <filesystem>

#include "trainer/report/page.h"

namespace cosmos::trainer {

/// Writes `run_dir`/report.html: curves, loss by label, sample pictures, settings and the end of
/// the log, in one file that needs nothing else. Everything but `facts` is read from the run
/// folder, so a report can be made anew at any time. Throws Error when the folder has no metrics.
void write_report(const std::filesystem::path& run_dir, const Facts& facts = {});

}  // namespace cosmos::trainer
