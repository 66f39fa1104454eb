//! What a sandbox tells Prometheus: its host processes as `/proc` sees them and
//! how long calls took, in the families Kata's dashboards know.

mod histogram;
mod process;
mod text;

pub use histogram::Histogram;
pub use process::{Extent, Process};
pub use text::Text;
