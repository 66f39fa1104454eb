//! The whole chain against real servers over TLS.

mod failures;
mod order;
mod server;
mod verdicts;
