//! Which number stands for a set of labels?
