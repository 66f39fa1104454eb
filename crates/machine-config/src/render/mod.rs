//! Many MachineConfigs become the one a pool's nodes run.
//!
//! ```text
//! MachineConfigs of the pool ──order──► fold(merge) ──validate──► name = hash(spec)
//! ```

mod extensions;
mod name;

use serde_json::Value;

use crate::{
    ignition,
    reconcile::{self, Refusal},
    spec::{Kernel, Spec, SpecError},
};

pub use extensions::{KNOWN as KNOWN_EXTENSIONS, SANDBOXES, packages};
pub use name::rendered_name;

/// Largest rendered object; what etcd takes by default.
pub const MAX_BYTES: usize = 1_572_864;

/// One MachineConfig a pool selects.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Value of its role label.
    pub role: String,
    /// Whether a controller made it. Only people's configurations set images.
    pub generated: bool,
    /// Its `spec` as it stands in the API.
    pub spec: Value,
}

/// What a pool's nodes shall run.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// `rendered-<pool>-<32 hex digits>`.
    pub name: String,
    /// The merged configuration.
    pub spec: Spec,
    /// Names of the inputs, in order of rising precedence.
    pub sources: Vec<String>,
    /// Whether an input replaced the operating system image.
    pub os_image_overridden: bool,
}

/// Why a pool has no new configuration. The old one stays.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// Nothing to render from.
    #[error("no MachineConfig matches spec.machineConfigSelector of pool {pool}; label one or correct the selector")]
    NoMatch {
        /// The pool.
        pool: String,
    },
    /// One input cannot be used.
    #[error("MachineConfig {input} cannot be used; correct or delete it")]
    Input {
        /// The guilty object.
        input: String,
        /// What is wrong with it.
        source: SpecError,
    },
    /// One input asks for a package nobody knows.
    #[error(
        "MachineConfig {input} asks for unknown extension `{extension}`; known are {}",
        extensions::KNOWN.join(", ")
    )]
    Extension {
        /// The guilty object.
        input: String,
        /// The unknown name.
        extension: String,
    },
    /// Headers of one kernel with another kernel.
    #[error("MachineConfig {input} asks for extension kernel-devel, which does not go with kernelType {}", kernel.as_str())]
    KernelDevel {
        /// The object that asks for the extension.
        input: String,
        /// The kernel the pool gets.
        kernel: Kernel,
    },
    /// The result is too large for the API.
    #[error("the merged configuration has {bytes} bytes, more than {MAX_BYTES}; the largest input is {input}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// Where most of it comes from.
        input: String,
    },
    /// Running nodes cannot get there.
    #[error("running nodes cannot change to this configuration: {}", refused(.changes))]
    Unreconcilable {
        /// What is impossible, and which input asks for it.
        changes: Vec<(String, Refusal)>,
    },
}

fn refused(changes: &[(String, Refusal)]) -> String {
    changes.iter().map(|(input, refusal)| format!("{input} ({refusal})")).collect::<Vec<_>>().join("; ")
}

/// Merges `inputs` for `pool`. `current` is what the pool's nodes run or are on
/// their way to; it is not replaced by something they cannot change to.
///
/// # Errors
/// [`RenderError`], naming the guilty input.
pub fn render(pool: &str, inputs: &[Input], current: Option<&Spec>) -> Result<Rendered, RenderError> {
    if inputs.is_empty() {
        return Err(RenderError::NoMatch { pool: pool.into() });
    }
    let mut ordered: Vec<&Input> = inputs.iter().collect();
    ordered.sort_by_key(|input| (input.role != "worker", input.name.as_str()));
    let parsed = ordered.iter().map(|input| check(input)).collect::<Result<Vec<_>, _>>()?;
    let (spec, os_image_overridden) = fold(&ordered, &parsed);
    let sources: Vec<String> = ordered.iter().map(|input| input.name.clone()).collect();
    let asks_for_headers = |part: &Spec| part.extensions.iter().any(|name| name == "kernel-devel");
    if spec.kernel != Kernel::Default
        && let Some(at) = parsed.iter().position(asks_for_headers)
    {
        return Err(RenderError::KernelDevel { input: sources[at].clone(), kernel: spec.kernel });
    }
    size(&spec, &ordered)?;
    if let Some(current) = current {
        reconcilable(current, &spec, &sources, &parsed)?;
    }
    Ok(Rendered { name: rendered_name(pool, &spec), spec, sources, os_image_overridden })
}

fn check(input: &Input) -> Result<Spec, RenderError> {
    let spec = Spec::parse(&input.spec).map_err(|source| RenderError::Input { input: input.name.clone(), source })?;
    match spec.extensions.iter().find(|name| packages(name).is_none()) {
        None => Ok(spec),
        Some(unknown) => Err(RenderError::Extension { input: input.name.clone(), extension: unknown.clone() }),
    }
}

fn fold(inputs: &[&Input], parsed: &[Spec]) -> (Spec, bool) {
    let mut out = Spec::default();
    for (input, spec) in inputs.iter().zip(parsed) {
        out.ignition = ignition::merge(std::mem::take(&mut out.ignition), spec.ignition.clone());
        out.kernel_arguments.extend(spec.kernel_arguments.iter().cloned());
        out.extensions.extend(spec.extensions.iter().cloned());
        out.fips |= spec.fips;
        if spec.kernel != Kernel::Default {
            out.kernel = spec.kernel;
        }
        for (slot, image) in
            [(&mut out.os_image_url, &spec.os_image_url), (&mut out.extensions_image, &spec.extensions_image)]
        {
            if !input.generated && !image.is_empty() {
                slot.clone_from(image);
            }
        }
    }
    let overridden = !out.os_image_url.is_empty();
    (out, overridden)
}

fn size(spec: &Spec, inputs: &[&Input]) -> Result<(), RenderError> {
    let bytes = spec.to_value().to_string().len();
    if bytes <= MAX_BYTES {
        return Ok(());
    }
    let largest = inputs.iter().max_by_key(|input| input.spec.to_string().len());
    Err(RenderError::TooLarge { bytes, input: largest.map(|input| input.name.clone()).unwrap_or_default() })
}

/// Blames the last input that says anything about a refused part; when none does,
/// somebody took one away.
fn reconcilable(current: &Spec, spec: &Spec, sources: &[String], parsed: &[Spec]) -> Result<(), RenderError> {
    let blame = |part: &str| {
        let says = |input: &Spec| match part {
            "fips" => input.fips,
            reconcile::FILES => input.ignition.files.keys().any(|path| reconcile::is_reserved(path)),
            _ => input.ignition.first_boot.contains_key(part),
        };
        let guilty = parsed.iter().rposition(says).map(|at| sources[at].clone());
        guilty.unwrap_or_else(|| "a deleted or changed MachineConfig".into())
    };
    let changes: Vec<_> =
        reconcile::refusals(current, spec).into_iter().map(|refusal| (blame(&refusal.part), refusal)).collect();
    if changes.is_empty() { Ok(()) } else { Err(RenderError::Unreconcilable { changes }) }
}

#[cfg(test)]
mod tests;
