// cosmos-curate's tables, read back through Arrow.

#ifdef COSMOS_PARQUET

#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>

#include "test/tools/curate_run.h"
#include "test/tools/parquet_rows.h"
#include "test/tools/tiny_reason.h"

using namespace cosmos;
using Run = cosmos::test::CurateRun;

TEST_CASE("cosmos-curate's Parquet holds every part and file, with what is known of it",
          "[curate][curate-parquet]") {
  Run run;
  const std::string model = test::write_tiny_reason(run.folder.path()).string();
  test::write_footage(run.inputs / "a.mp4", test::scene(20, {200, 60, 40}, {250, 250, 250}));
  test::write_footage(run.inputs / "b\xff.mp4", torch::zeros({20, 64, 96, 3}, torch::kUInt8));
  std::ofstream(run.inputs / "c.mp4") << "not a video";
  const Json settings = {{"split", {{"min_s", 0}}},
                         {"dedup", {{"model", model}, {"side", 32}}},
                         {"outputs", {{"parquet", true}}}};
  const test::Answer done = test::run_program("cosmos-curate", run.config(settings).string());
  INFO(done.text);
  REQUIRE(done.code == 0);

  auto clips = test::parquet_rows((run.output / "parquet/clips.parquet").string());
  const Json kept = run.lines("clips.jsonl").at(0), dropped = run.lines("dropped.jsonl").at(0);
  CHECK(clips["state"] == std::vector<std::string>{"kept", "dropped"});
  CHECK(clips["span_uuid"] == std::vector<std::string>{kept["span_uuid"], dropped["span_uuid"]});
  CHECK(clips["caption"] == std::vector<std::string>{"A square.", "null"});
  CHECK(clips["reason"] == std::vector<std::string>{"null", "black"});
  CHECK(clips["num_frames"] == std::vector<std::string>{"20", "20"});
  CHECK(clips["end_s"] == std::vector<std::string>{"2", "2"});
  CHECK(clips["source_video"][1].find("b\xEF\xBF\xBD.mp4") != std::string::npos);
  CHECK(std::stod(clips["score_sharpness"][0]) ==
        Approx(kept["scores"]["sharpness"].get<double>()));

  auto sources = test::parquet_rows((run.output / "parquet/sources.parquet").string());
  CHECK(sources["stage"] == std::vector<std::string>{"analysed", "analysed", "failed"});
  CHECK(sources["fps"] == std::vector<std::string>{"10", "10", "null"});

  auto embeddings = test::parquet_rows((run.output / "parquet/embeddings.parquet").string());
  CHECK(embeddings["id"] == std::vector<std::string>{kept["span_uuid"]});
  CHECK(std::count(embeddings["embedding"][0].begin(), embeddings["embedding"][0].end(), ',') ==
        23);
}

#endif  // COSMOS_PARQUET
