//! The controllers against the real control plane. Only the node agent is played:
//! it makes bound pods run, ends those that say how they end, and lets dying ones go.

mod endpoints;
mod garbage;
mod jobs;
mod kit;
mod namespaces;
mod nodes;
mod quiet;
mod scheduling;
mod volumes;
mod workloads;
