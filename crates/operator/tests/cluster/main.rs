//! The operator against the real control plane. Only what configures machines is played:
//! the tests move pools and nodes by hand, state by state.

mod acceptance;
mod admission;
mod faults;
mod kit;
mod life;
mod manifests;
mod probing;
