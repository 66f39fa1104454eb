//! Feature gates.

use osc_objects::{KataConfig, MachineConfig, kata_config::DegradedReason, names::kata};

use super::health::Problem;
use crate::{made, options::Options, seen::Seen};

/// Gate: take a whole operating system image instead of the extension.
const LAYERED: &str = "layeredImageDeployment";

/// The MachineConfig to create; only asked while there is none, so that a gate that is
/// changed later changes nothing.
pub(super) fn machine_config(
    seen: &Seen,
    config: &KataConfig,
    pool: &str,
    options: &Options,
) -> Result<MachineConfig, Problem> {
    let layered = seen.gates.get(LAYERED).map_or(Ok(false), |text| parse(text))?;
    if !layered {
        return Ok(made::extension_config(config, pool, &options.extension));
    }
    let data = seen.layered_image.as_ref().ok_or_else(|| {
        wrong(format!(
            "ConfigMap {} not found: create it with osImageURL, or switch {LAYERED} off",
            kata::LAYERED_IMAGE
        ))
    })?;
    let image = data.get("osImageURL").filter(|image| !image.is_empty()).ok_or_else(|| {
        wrong(format!("osImageURL not found in ConfigMap {}: add it, or switch {LAYERED} off", kata::LAYERED_IMAGE))
    })?;
    let arguments = data.get("kernelArguments").map_or("", String::as_str);
    Ok(made::image_config(config, pool, image, arguments))
}

fn wrong(text: String) -> Problem {
    Problem::new(DegradedReason::InvalidFeatureGates, text)
}

/// A boolean in the spellings administrators are used to.
fn parse(text: &str) -> Result<bool, Problem> {
    match text.trim() {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" | "" => Ok(false),
        other => {
            Err(wrong(format!("{LAYERED} in ConfigMap {} is {other:?}: write true or false", kata::FEATURE_GATES)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_takes_the_usual_spellings() {
        for (text, wanted) in
            [("true", Some(true)), ("T", Some(true)), ("0", Some(false)), ("", Some(false)), ("on", None)]
        {
            assert_eq!(parse(text).ok(), wanted, "{text:?}");
        }
    }
}
