//! The simulator: virtual clock, network and store, a naive oracle, replay by seed.
