//! Do the expectations hold on a running lab? The tests are in `tests/`, one file for each scenario.
