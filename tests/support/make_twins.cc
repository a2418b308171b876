// quern_make_twins SOURCE OUT: writes OUT/tied and OUT/mistral-layout, twins of the checkpoint SOURCE
// (tests/data/tiny-mistral), for scripts and for looking at by hand.
#include <cstdio>
#include <exception>
#include <string>

#include "tests/support/checkpoints.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: quern_make_twins SOURCE OUT\n");
    return 1;
  }
  try {
    const std::string out = argv[2];
    quern::test::write_tied_twin(argv[1], out + "/tied");
    quern::test::write_mistral_layout_twin(argv[1], out + "/mistral-layout");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
}
