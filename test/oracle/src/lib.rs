//! A slow, obvious evaluator of the policy language, to compare the engine with.
