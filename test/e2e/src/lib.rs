//! Do the seeds' expectations hold on a running lab?
