// The small model of --draft, before and after it is loaded.
#include "cli/draft_model.h"

#include <gtest/gtest.h>

#include "tests/support/models.h"

namespace quern {
namespace {

TEST(DraftModel, IsPlannedAndLoadedWithNoMorePositionsThanItKnows) {
  const std::string path = test::converted("tiny-mistral", "q8_0");
  ModelOptions options;
  const uint64_t trained = test::open_model(path, options)->hparams().context_length;
  const auto planned = [&](uint64_t context) {
    options.context = context;
    return DraftModel::memory(path, options);
  };
  const MemoryPlan plan = planned(trained);
  EXPECT_EQ(planned(16 * trained).total(), plan.total());
  EXPECT_LT(planned(64).kv, plan.kv);

  options.context = 4 * trained;
  const auto target = test::open_model(path, options);
  EXPECT_EQ(DraftModel(path, options, *target).model().context(), trained);
  options.context = 64;
  EXPECT_EQ(DraftModel(path, options, *test::open_model(path, options)).model().context(), 64u);
}

}  // namespace
}  // namespace quern
