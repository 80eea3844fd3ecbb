//! Crossplane's function protocol.
