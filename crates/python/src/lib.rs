//! PyO3 translation of the server, the codec and the events; no decisions.
