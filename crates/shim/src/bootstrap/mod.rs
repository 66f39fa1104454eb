//! From an engine's command line to a serving process and, in the end, back to
//! nothing.

mod address;
mod daemon;
mod delete;
mod info;
mod start;
mod template;

use std::path::PathBuf;

use osc_runtime::dirs::Dirs;

pub use daemon::serve;
pub use delete::delete;
pub use info::{runtime_info, version};
pub use start::start;
pub use template::make_template;

/// Environment variable with the number of the inherited listening socket.
pub const SOCKET_VARIABLE: &str = "KATA_RUNTIME_BIND_FD";
/// Environment variable naming the configuration file.
pub const CONFIG_VARIABLE: &str = "KATA_CONF_FILE";
/// Environment variable asking for core scheduling.
pub const CORE_VARIABLE: &str = "SCHED_CORE";

/// File of a bundle with the address of its shim.
const ADDRESS_FILE: &str = "address";
/// File of a bundle with the process identifier of its shim.
const PID_FILE: &str = "shim.pid";
/// What the starting process writes to the serving one once its socket listens.
const GO: &[u8] = b"\n";

/// What the process finds around itself; read once, in `main`.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The bundle.
    pub bundle: PathBuf,
    /// Where everything lies on the host.
    pub dirs: Dirs,
    /// Configuration file of the environment.
    pub config_file: Option<PathBuf>,
    /// Where events go.
    pub events: Option<String>,
    /// Number of the inherited listening socket.
    pub socket: Option<i32>,
    /// Whether the processes of the pod shall share cores with nobody else.
    pub own_cores: bool,
}
